"Samplers: what they may never return, how flat their histograms are, and that nothing leaks from what is kept aside."
import numpy as np, pytest, torch
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from laso.features.backbones import create_backbone
from laso.train.finetune import finetune
from laso.core import OPS, InputError, label_op
from laso.data.folder import ImageSet
from laso.ops.evaluation import (EXPRESSIONS, Expression, class_columns, evaluation_pairs, expression_labels,
                                 expression_rows)
from laso.features.table import FeatureTable
from laso.fewshot.methods import fewshot
from laso.fewshot.support import support_sets, synthetic_pairs
from laso.fewshot.views import mixup_plan, toy_views
from laso.data.labels import LabelTable
from laso.train.recipes import ops_learner
from laso.data.labels import balanced_rows, draw_pairs
from laso.train.learner import PairDL
from laso.lab.speed_fewshot import random_table

few,fewer = settings(deadline=None, max_examples=60),settings(deadline=None, max_examples=25)   # searching in vain takes long
seeds = st.integers(0, 2**32-1)

@st.composite
def label_sets(draw, n=(2, 30), n_lbl=(1, 6)):
    "Multi-hot rows, from one or two classes each to almost all; some may be empty."
    shape,p = (draw(st.integers(*n)), draw(st.integers(*n_lbl))), draw(st.sampled_from([.15, .4, .8]))
    return torch.from_numpy(np.random.default_rng(draw(seeds)).random(shape) < p).float()

@st.composite
def single_labels(draw):
    "Rows with one class each, and two rows or more of every class."
    sizes = draw(st.lists(st.integers(2, 9), min_size=1, max_size=6))
    return torch.eye(len(sizes)).repeat_interleave(torch.tensor(sizes), 0)

class Counting:
    "A source of randomness that counts what it is asked for: an array at the beginning, then two numbers a try."
    def __init__(self, seed): self.rng,self.numbers = np.random.default_rng(seed),0
    def random(self, n=None): self.numbers += n is None; return self.rng.random(n)
    tries = property(lambda self: self.numbers//2)

def shared(labels): return labels.sum(0) > 1

@few
@given(label_sets(), st.integers(0, 60), seeds)
def test_pairs_share_a_label(labels, n, seed):
    draw = lambda: draw_pairs(labels, n, rng=np.random.default_rng(seed))
    if not shared(labels).any():
        with pytest.raises(ValueError, match='expected a class that two images show'): draw()
        return
    pairs = draw()
    x,y = labels[pairs].unbind(1)
    assert pairs.shape == (n, 2) and (x*y).any(1).all() and (pairs[:,0] != pairs[:,1]).all()
    assert torch.equal(pairs, draw())

@fewer
@given(label_sets(n=(2, 6), n_lbl=(1, 4)), seeds)
def test_pairs_of_a_subtraction_leave_a_label(labels, seed):
    "They are found wherever there are any, and only there."
    l = labels.bool().numpy()
    possible = any((a & b).any() and (a & ~b).any() for a in l for b in l)
    draw = lambda: draw_pairs(labels, 5, rng=np.random.default_rng(seed), different=True)
    if not possible:
        with pytest.raises(ValueError, match='expected'): draw()
        return
    x,y = labels[draw()].unbind(1)
    assert (x*y).any(1).all() and (x*(1-y)).any(1).all()

@few
@given(label_sets(), st.integers(0, 300), seeds)
def test_pairs_are_drawn_for_every_class_in_its_turn(labels, n, seed):
    """Each pair is drawn for the class with the lowest count, and both images show it, so of n pairs every one of L classes gets
    2*floor(n/L) images or more. A try in which both images are the same one counts as a tenth of an image; the counts start within one half."""
    assume(shared(labels).any())
    rng = Counting(seed)
    hist = labels[draw_pairs(labels, n, rng=rng)].sum((0,1))[shared(labels)]
    in_vain = rng.tries-n
    assert hist.min() >= 2*(n//len(hist)) - 1 - .1*in_vain
    assert in_vain <= n + 9*(2*n)**.5 + 60   # at most every second try on average: a class has two images or more

@few
@given(single_labels(), st.integers(0, 300), seeds)
def test_pairs_of_single_labels_are_flat(labels, n, seed):
    rng = Counting(seed)
    hist = labels[draw_pairs(labels, n, rng=rng)].sum((0,1))
    assert hist.sum() == 2*n and hist.max()-hist.min() <= 2.5 + .1*(rng.tries-n)

def test_pairs_of_rare_classes():
    "Eighty classes, the rarest 1/80 as frequent as the first: in 16,000 images each gets 95 % of its share or more."
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.random((5000, 80)) < .6/np.arange(1, 81)).float()
    hist = labels[draw_pairs(labels, 8000, rng=rng)].sum((0,1))
    assert hist.min() >= .95*16000/80 and labels.mean(0).min() < .2*labels.mean(0).mean()

@few
@given(label_sets(), st.integers(0, 200), seeds)
def test_balanced_rows_are_flat(labels, n, seed):
    "Every class that is shown gets floor(n/L) rows or more, and single classes differ by one at the most."
    rng,shown = np.random.default_rng(seed),labels.any(0)
    if not shown.any():
        with pytest.raises(ValueError, match='expected a class that an image shows'): balanced_rows(labels, n, rng=rng)
        return
    rows = balanced_rows(labels, n, rng=rng)
    assert len(rows) == n and labels[rows].any(1).all()
    hist = labels[rows].sum(0)[shown]
    assert hist.min() >= n//len(hist)
    if (labels.sum(1) <= 1).all(): assert hist.max()-hist.min() <= 1

@few
@given(label_sets(n=(4, 30)), st.integers(2, 12), seeds)
def test_batches_belong_together(labels, half, seed):
    "Features and labels of the same rows, of the given ones only; two processes share each batch between them."
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels))[:-1])
    assume(shared(labels[rows]).any())
    x = torch.arange(len(labels)).float()[:,None]
    make = lambda: PairDL(x, labels, rows=rows, n_pairs=4*half+1, bs=2*half, seed=seed)
    whole = list(make())
    assert [len(b[0]) for b in whole] == [2*half]*2   # the rest of a batch is left out
    for fx,fy,lx,ly in whole:
        for f,l in ((fx, lx), (fy, ly)):
            at = f[:,0].long()
            assert torch.isin(at, rows).all() and torch.equal(labels[at], l)
    parts = []
    for me in '01':
        with pytest.MonkeyPatch.context() as m:
            m.setenv('RANK', me); m.setenv('WORLD_SIZE', '2')
            parts.append(list(make()))
    for w,a,b in zip(whole, *parts): assert all(torch.equal(torch.stack([p, q], 1).flatten(0, 1), o) for o,p,q in zip(w, a, b))

@st.composite
def tables(draw, n_shot=3):
    "Labels with splits, and enough training rows of novel classes (unless it happens otherwise)."
    labels = draw(label_sets(n=(20, 60), n_lbl=(2, 6)))
    rng = np.random.default_rng(draw(seeds))
    novel = torch.zeros(labels.shape[1]).bool()
    novel[:draw(st.integers(1, labels.shape[1]-1))] = True
    names,is_valid = [f'c{i}' for i in range(len(novel))],torch.from_numpy(rng.random(len(labels)) < .3)
    return LabelTable(labels, names, is_valid, novel)

@few
@given(tables(), seeds)
def test_support_sets(table, seed):
    draw = lambda **kw: support_sets(table, n_shots=(1, 3), seed=seed, **kw)
    if table.novel_labels[table.train_ids].sum(0).min() < 3:
        with pytest.raises(InputError, match='expected at least 3 training images'): draw()
        return
    sets = draw(n_eps=3)
    assert [(s.shot, s.episode) for s in sets] == [(k, e) for k in (1, 3) for e in range(3)]
    for s in sets:
        l = table.novel_labels[s.rows]
        assert not table.is_valid[s.rows].any() and len(s.rows.unique()) == len(s.rows)
        assert l.sum(0).min() >= s.shot and l.any(1).all() and len(s.rows) <= s.shot*l.shape[1]
        pairs,lam = mixup_plan(s, 20)
        assert torch.isin(pairs, s.rows).all() and ((lam >= 0) & (lam <= 1)).all()
        for op in OPS:
            x,y = synthetic_pairs(l, op, 9, rng=s.rng(op)).T
            assert len(x) <= 9 and (x != y).all() and label_op(op, l[x], l[y]).any(1).all()
    again = {(s.shot, s.episode): s.rows.tolist() for s in draw(n_eps=5)}
    assert all(again[s.shot, s.episode] == s.rows.tolist() for s in sets)   # more sets leave the first as they are

@fewer
@given(tables(), seeds)
def test_evaluation_sees_validation_rows_only(table, seed):
    table = FeatureTable(torch.rand(len(table), 2), table.labels, table.vocab, table.is_valid, table.novel)
    for cols in class_columns(table).values():
        l = table.labels[table.valid_ids][:,cols].bool().numpy()
        draw = lambda: evaluation_pairs(table, cols, n_pairs=5, seed=seed)
        if not any((a & b).any() and (a & ~b).any() for a in l for b in l):
            with pytest.raises(ValueError, match='expected'): draw()
            continue
        for op,pairs in draw().items():
            x,y = table.labels[pairs][:,:,cols].unbind(1)
            assert table.is_valid[pairs].all() and (x*y).any(1).all() and label_op(op, x, y).any(1).all()

@few
@given(label_sets(n=(6, 30)), st.sampled_from(EXPRESSIONS), seeds)
def test_rows_of_expressions(labels, text, seed):
    e,rng = Expression(text),np.random.default_rng(seed)
    try: rows = expression_rows(e, labels[labels.any(1)], 5, rng=rng)
    except ValueError as err:   # where too few fit, that is said
        assert str(err).startswith('expected')
        return
    assert expression_labels(e, labels[labels.any(1)][rows]).any(1).all() and all(len(set(r)) == len(r) for r in rows.tolist())

# Nothing leaks: what is kept aside may be anything, and the result stays the same to the last bit

def scrambled(table, seed=1):
    "Other novel labels everywhere, and other features and labels of all validation rows."
    g = torch.Generator().manual_seed(seed)
    x,y = table.x.clone(),table.labels.clone()
    y[:,table.novel] = (torch.rand(len(y), int(table.novel.sum()), generator=g) < .5).float()
    y[table.is_valid] = (torch.rand(int(table.is_valid.sum()), y.shape[1], generator=g) < .5).float()
    x[table.is_valid] = torch.randn(int(table.is_valid.sum()), x.shape[1], generator=g)
    return FeatureTable(x, y, table.vocab, table.is_valid, table.novel)

def small_table():
    t = random_table(100, 8, n_way=3, n_base=5)
    t.labels[:,t.base_ids] = (torch.rand(len(t), 5, generator=torch.Generator().manual_seed(0)) < .4).float()
    return FeatureTable(t.x, t.labels, [f'c{i}' for i in range(8)], t.is_valid, t.novel)

@pytest.mark.parametrize('options', [{}, dict(kind='mixture'), dict(kind='residual', joint=True)],
                         ids=['default', 'mixture', 'residual-joint'])
def test_operators_see_no_novel_label_and_no_validation_row(options):
    def train(table):
        learn = ops_learner(table, n_pairs=512, bs=64, **options)
        torch.manual_seed(0)   # of the dropout
        with learn.no_bar(), learn.no_logging(): learn.fit_ops(1)
        return learn
    table = small_table()
    a,b = train(table),train(scrambled(table))
    for k,v in a.model.state_dict().items(): assert torch.equal(v, b.model.state_dict()[k]), k
    rows,held = (o.rows for o in a.dls.loaders)
    assert not torch.isin(rows, held).any() and torch.isin(torch.cat([rows, held]), table.train_ids).all()
    assert all(l.shape[1] == len(table.base_ids) for batch in a.dls.train for l in batch[-2:])

@pytest.mark.parametrize('kind', ['logic', 'mixture'])
def test_pictures_with_a_novel_label_can_be_left_out(kind):
    table = small_table()
    table.labels[::2,table.novel_ids[0]:] = 0   # otherwise all training pictures show a novel class
    for dl in ops_learner(table, kind, n_pairs=512, bs=64, drop_novel=True).dls.loaders:
        assert len(dl.rows) and not table.novel_labels[dl.rows].any()
        for drawn in (dl.draw(), dl.draw()):
            pairs = torch.cat([p for _,p in drawn]) if kind == 'logic' else drawn   # with their fold
            assert not table.novel_labels[pairs].any()

def test_heads_see_their_support_set_only():
    table = small_table()
    sets,other = support_sets(table, n_shots=(1, 2), n_eps=3),scrambled(table)
    for i in range(len(sets)):
        labels,outside = table.labels.clone(),~torch.isin(torch.arange(len(table)), sets[i].rows) & ~table.is_valid
        labels[outside] = other.labels[outside]
        changed = FeatureTable(table.x, labels, table.vocab, table.is_valid, table.novel)
        views = toy_views(table, sets[i:i+1])
        score = lambda t: [r['map'] for r in fewshot(t, views=views, sets=sets[i:i+1])]
        assert score(table) == score(changed)

def test_backbones_see_no_novel_label_and_no_validation_picture(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path/'images').mkdir()
    for i in range(30): Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path/f'images/{i}.png')
    table = small_table()
    at = torch.cat([table.train_ids[:16], table.valid_ids[:6]])
    def train(t, names):
        images = ImageSet(tmp_path, [f'{i}.png' for i in names], t.labels[at], t.vocab, t.is_valid[at], t.novel)
        torch.manual_seed(0)
        body = create_backbone('test_efficientnet', size=32, weights='random')
        return finetune(body, images, epochs=1, bs=4).model.state_dict()
    a,b = train(table, range(22)),train(scrambled(table), [*range(16), *range(24, 30)])
    for k,v in a.items(): assert torch.equal(v, b[k]), k
