"Unknown labels: Kleene's logic by its definition, and rows of which nothing is known change no number."
import itertools
import numpy as np
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from test_label_algebra import LAWS
from laso.core import OPS, label_op
from laso.data.labels import LabelTable, balanced_rows, draw_pairs, draw_valid, pseudo_novel
from laso.evaluate.metrics import average_precision, decision_scores, draw_counts, label_iou, resampled_ap
from laso.evaluate.retrieval import query_iou
from laso.features.heads import fit_heads
from laso.features.table import FeatureTable, load_features, toy_table
from laso.fewshot.methods import METHODS, fewshot
from laso.fewshot.support import support_sets
from laso.ops.evaluation import Expression, evaluate, evaluation_heads, expression_labels
from laso.ops.kinds import set_ops
from laso.train.losses import LaSO, LaSOLoss, focal_loss, of_known, targets
from laso.train.recipes import ranking_loss, train_ops

nan = torch.nan
few = settings(deadline=None, max_examples=80)
values = st.sampled_from([0., 1., nan])
rows = st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(values, min_size=n, max_size=n), min_size=3, max_size=3))

def same(a, b): return torch.equal(a.nan_to_num(9), b.nan_to_num(9))
def completions(*sets):
    "All ways to fill in what is unknown."
    flat = torch.cat(sets)
    for fill in itertools.product((0., 1.), repeat=int(flat.isnan().sum())):
        res = flat.clone()
        res[flat.isnan()] = torch.tensor(fill, dtype=flat.dtype)
        yield res.split([len(o) for o in sets])

def agreed(results):
    "What all results say, NaN where they differ."
    r = torch.stack(results)
    return torch.where((r == r[0]).all(0), r[0], nan)

@pytest.mark.parametrize('op', OPS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_all_nine_pairs_of_each_operation(op, dtype):
    three = torch.tensor([0., 1., nan], dtype=dtype)
    x,y = torch.cartesian_prod(three, three).T
    want = [agreed([label_op(op, p, q) for p,q in completions(a[None], b[None])]) for a,b in zip(x, y)]
    got = label_op(op, x, y)
    assert same(got, torch.cat(want)) and got.dtype == dtype

@few
@given(rows)
def test_what_is_known_stays(batch):
    "Of expressions and of all targets of the loss: a known result is that of every completion."
    x,y,z = map(torch.tensor, batch)
    texts = 'x - (y & z)', '(x | y) - z', '(x - y) | (y - x)', '(x & y) | (x & z)'
    got = [expression_labels(Expression(o), torch.stack([x, y, z])[None])[0] for o in texts]
    t = targets(x[None], y[None])
    for a,b,c in itertools.islice(completions(x, y, z), 16):
        for o,r in zip(texts, got):
            full = expression_labels(Expression(o), torch.stack([a, b, c])[None])[0]
            assert (r.isnan() | (r == full)).all()
        full = targets(a[None], b[None])
        assert all((t[k].isnan() | (t[k] == full[k])).all() for k in t)
    for op in OPS: assert same(t[op], label_op(op, x, y)[None]) and same(t[f'{op}_yx'], label_op(op, y, x)[None])

@few
@given(rows)
def test_laws_of_kleene(batch):
    "All laws of sets but those that need the excluded middle."
    x,y,z = map(torch.tensor, batch)
    not_here = 'excluded middle', 'contradiction', 'disjoint parts', 'x = (x\\y)∪(x∩y)', 'x\\(x\\y) = x∩y', 'neutral elements'
    for law,sides in LAWS.items():
        if law not in not_here: assert same(*sides(x, y, z)), law

@few
@given(rows)
def test_overlap_counts_what_both_know(batch):
    a,b,_ = map(torch.tensor, batch)
    known = ~(a.isnan() | b.isnan())
    got = label_iou(a, b)
    assert got.isnan() if not known.any() else got == label_iou(a[known], b[known])

# Complete labels: the plain formulas, bit by bit

@few
@given(st.integers(0, 99))
def test_complete_labels_are_computed_as_ever(seed):
    g = torch.Generator().manual_seed(seed)
    x,y = (torch.rand(2, 6, 5, generator=g) < .4).float()
    for op,want in zip(OPS, (x.maximum(y), x*y, x*(1-y))): assert torch.equal(label_op(op, x, y), want)
    fx,fy = torch.randn(2, 6, 5, generator=g)
    out,loss = LaSO(set_ops('analytic', 5), torch.nn.Identity())(fx, fy),LaSOLoss()
    loss(out, x, y)
    z,t = out['logits'],targets(x, y)
    bce = F.binary_cross_entropy_with_logits
    names = [f'{op}{o}' for op in OPS for o in ('', '_yx')]
    assert torch.equal(loss.terms['laso'], 1.*sum(bce(z[k], t[k]) for k in names))
    assert torch.equal(of_known(focal_loss, z['x'], x), focal_loss(z['x'], x))

# A row of which nothing is known

def with_unknown(t, n=7, valid=False):
    "The table with `n` more rows of random features and unknown labels."
    g = torch.Generator().manual_seed(5)
    x = torch.cat([t.x, torch.rand(n, t.width, generator=g)])
    y = torch.cat([t.labels, torch.full((n, t.labels.shape[1]), nan)])
    return FeatureTable(x, y, t.vocab, torch.cat([t.is_valid, torch.tensor([valid]*n)]), t.novel)

@pytest.fixture(scope='module')
def table(): return toy_table(n=300, d=16)

def test_metrics_leave_it_out(table):
    g = torch.Generator().manual_seed(1)
    y = torch.cat([table.labels, torch.full((7, 12), nan)])
    s = torch.randn(2, 307, 12, generator=g)
    assert torch.equal(average_precision(s, y), average_precision(s[:,:300], y[:300]))
    counts = draw_counts(307, 5)
    assert np.array_equal(resampled_ap(s, y, counts), resampled_ap(s[:,:300], y[:300], counts[:300]))
    q,ql = table.x[:20],table.labels[:20]
    far = torch.cat([table.x, 1e3+table.x[:7]])
    a = query_iou(q, ql, table.x, table.labels, exclude=torch.arange(20)[:,None])
    b = query_iou(q, ql, far, y, exclude=torch.arange(20)[:,None])
    assert ((b == a) | a.isnan()).all()

def test_an_unknown_set_can_be_found():
    q,db = torch.zeros(3, 2),torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    ql = torch.tensor([[1., nan], [0, 1], [nan, nan]])
    dl = torch.tensor([[1., 1], [0, 0], [nan, 0], [1, nan]])
    def fits(a, b): return ((a == b) | a.isnan() | b.isnan()).all()
    for exclude in ([[-1, -1]]*3, [[0, 3]]*3, [[0, 2], [1, 3], [0, 1]]):
        got = ~query_iou(q, ql, db, dl, exclude=torch.tensor(exclude), ks=(1,)).isnan()[:,0]
        want = [bool((a == 1).any()) and any(fits(a, b) for j,b in enumerate(dl) if j not in e) for a,e in zip(ql, exclude)]
        assert got.tolist() == want

def test_draws_do_not_see_it(table):
    more,rng = with_unknown(table),lambda: np.random.default_rng(3)
    for d in (False, True):
        assert torch.equal(draw_pairs(table.labels, 99, rng=rng(), different=d), draw_pairs(more.labels, 99, rng=rng(), different=d))
    assert torch.equal(balanced_rows(table.labels, 50, rng=rng()), balanced_rows(more.labels, 50, rng=rng()))
    a,b = (support_sets(t, n_eps=4) for t in (table, more))
    assert all(torch.equal(s.rows, t.rows) for s,t in zip(a, b))
    half = more.labels.masked_fill(torch.rand(more.labels.shape, generator=torch.Generator().manual_seed(2)) < .3, nan)
    x,y = half[draw_pairs(half, 200, rng=rng(), different=True)].unbind(1)
    assert ((x > 0) & (y > 0)).any(1).all() and ((x > 0) & (y == 0)).any(1).all()   # known to
    assert draw_valid(300, labels=half[:300]).sum() == 60
    assert pseudo_novel(more).labels.isnan().any()

def test_heads_and_scores_do_not_see_it(table):
    more = with_unknown(table, valid=True)
    ops,sets = set_ops('analytic', 16),support_sets(table, n_eps=3)
    names = ['none', 'analytic-union', 'logistic', 'cosine-softmax']
    a,b = (fewshot(t, ops, sets=sets, methods=names, n_boot=3) for t in (table, more))
    assert [r['map'] for r in a] == [r['map'] for r in b]
    x,y = table.x[None,:40],table.labels[None,:40]
    unknown = torch.cat([y, torch.full((1, 7, 12), nan)], 1)
    w = fit_heads(torch.cat([x, more.x[None,-7:]], 1), unknown, tol=1e-7)
    assert torch.allclose(w, fit_heads(x, y, tol=1e-7), atol=1e-4)
    res = [evaluate(t, dict(analytic=ops), n_pairs=100) for t in (table, more)]
    assert res[0]['operators'] == res[1]['operators'] and res[0]['untouched'] == res[1]['untouched']

# Partly known rows

def test_unknown_is_better_than_absent():
    "Half of all labels hidden: classifiers that were told the hidden ones are absent decide for hardly anything."
    t = toy_table(n=900, d=32)
    hide = (torch.rand(t.labels.shape, generator=torch.Generator().manual_seed(9)) < .5) & ~t.is_valid[:,None]
    def of(value):
        other = FeatureTable(t.x, t.labels.masked_fill(hide, value), t.vocab, t.is_valid, t.novel)
        z = evaluation_heads(other)['seen'](t.features(t.valid_ids))
        return decision_scores(z, t.base_labels[t.valid_ids])['macro_f1']
    assert of(nan) > of(0.)+.2

@pytest.mark.parametrize('kind,settings', [('logic', {}), ('paper', dict(h=16, focal=True))])
def test_operators_are_trained_on_what_is_known(table, kind, settings):
    hide = torch.rand(table.labels.shape, generator=torch.Generator().manual_seed(9)) < .3
    part = FeatureTable(table.x, table.labels.masked_fill(hide, nan), table.vocab, table.is_valid, table.novel)
    ops = train_ops(part, kind, epochs=1, n_pairs=128, bs=64, **settings)
    scores = evaluate(part, dict(o=ops), n_pairs=50)
    assert all(0 < r['map'] <= 1 for r in scores['operators']) and all(p.isfinite().all() for p in ops.parameters())

def test_ranking_loss_of_what_is_known():
    g = torch.Generator().manual_seed(0)
    z,t = torch.randn(9, 1, generator=g),(torch.rand(9, 1, generator=g) < .5).float()
    hidden = torch.cat([t, torch.full((3, 1), nan)])
    more = torch.cat([z, torch.randn(3, 1, generator=g)])
    assert torch.allclose(ranking_loss(more, hidden), ranking_loss(z, t))

def test_a_task_tells_what_is_known(table):
    y = table.labels.clone()
    y[:60:3,0] = nan
    part = FeatureTable(table.x, y, table.vocab, table.is_valid, table.novel)
    names = [k for k,m in METHODS.items() if not (m.ops or m.views or m.concepts)]
    res = fewshot(part, sets=support_sets(part, n_eps=2), methods=names, n_boot=0)
    assert all(0 < r['map'] <= 1 for r in res)

def test_files(table, tmp_path):
    y = table.labels.clone()
    y[3,2] = y[5,:4] = nan
    part = FeatureTable(table.x, y, table.vocab, table.is_valid, table.novel)
    part.save(tmp_path/'part'); table.save(tmp_path/'full')
    assert same(load_features(tmp_path/'part').labels, y)
    assert 'unknown' not in (tmp_path/'full'/'features.json').read_text()
    assert '5 of 3,600 labels unknown' in repr(part) and 'unknown' not in repr(table)
    with pytest.raises(ValueError, match='labels of 0 and 1'): LabelTable(y*nan, table.vocab, table.is_valid, table.novel)

def test_frequent_and_rare_classes_stand_apart():
    from laso.bench.results import tables
    from laso.evaluate.metrics import by_group
    rows = [{'operator': o, 'op': op, 'classes': 'seen', 'class': c, 'ap': ap} for o,op in (('untouched', ''), ('learned', 'union'))
            for c,ap in (('a', .5), ('b', .7), ('c', nan))]
    tab = tables(dict(long_tail=by_group(rows, dict(a=101, b=3, c=50))))
    assert [t.values.tolist() for t in tab.values()] == [[['50.0', '70.0']]*2] and list(*[t.columns for t in tab.values()]) == ['head', 'tail']
