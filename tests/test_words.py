"Words of features and search by expressions: the same as Python's sets, whatever the order of rows, and no junk gets through."
import random
import pytest, torch
from hypothesis import given, strategies as st
from laso.core import InputError
from laso.features.table import FeatureTable
from laso.ops.kinds import KINDS, set_ops
from laso.ops.search import degrees, meaning, search
from laso.ops.words import describe, features_of, read_words, words_of

TAGS = ['person', 'traffic light', 'class', 'self', '3d', 't-shirt', 'Hündin', '狗']
CONCEPTS = ['tennis ball', 'golf ball', 'racket, racquet', 'dalmatian, coach dog', 'crane', 'crane', 'hotdog, hot dog']

def table_of(labels, shares, pooled=3, order=None):
    "A table of tags and concepts, beside a block that says nothing."
    n,g = len(labels),torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(n, pooled, generator=g), shares.sqrt()], 1)
    order = torch.arange(n) if order is None else order
    blocks = (dict(pooled=pooled) if pooled else {}) | dict(concepts=len(CONCEPTS))
    return FeatureTable(x[order], labels[order], TAGS, torch.zeros(n).bool(), torch.arange(len(TAGS)) > 5,
                        fnames=[f'{i:04}.jpg' for i in order], meta=dict(blocks=blocks, concepts=CONCEPTS))

def drawn(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, len(TAGS), generator=g) < .4).float()
    shares = torch.rand(n, len(CONCEPTS), generator=g)*(torch.rand(n, len(CONCEPTS), generator=g) < .5)
    return labels,shares/shares.sum(1, keepdim=True).clamp(min=1)

def trees(words): return st.recursive(st.sampled_from(words), lambda o: st.tuples(o, st.sampled_from('|&-'), o), max_leaves=8)

TREES = trees([*TAGS, 'ball', 'racquet', 'dog', 'crane', 'golf ball'])

def written(tree):
    if isinstance(tree, str): return repr(tree) if len(tree)%2 or not tree.isidentifier() or tree == 'class' else tree
    return '({} {} {})'.format(written(tree[0]), tree[1], written(tree[2]))

def value(tree, leaf, ops):
    return leaf(tree) if isinstance(tree, str) else ops[tree[1]](*(value(t, leaf, ops) for t in (tree[0], tree[2])))

SETS = {'|': set.union, '&': set.intersection, '-': set.difference}
FUZZY = {'|': lambda a,b: a+b-a*b, '&': lambda a,b: a*b, '-': lambda a,b: a*(1-b)}
labels,shares = drawn(60)
table = table_of(labels, shares)

@given(trees(TAGS))
def test_tags_are_pythons_sets(tree):
    "Where every word is a known tag, hits are the elements of the set."
    has = {t: set(labels[:,i].nonzero().flatten().tolist()) for i,t in enumerate(TAGS)}
    rows,scores = search(table, written(tree), 60)
    assert set(rows.tolist()) == value(tree, has.get, SETS) and set(scores.tolist()) <= {1.}

@given(TREES)
def test_degrees_are_arithmetic(tree):
    "Row by row, in Python's numbers."
    def leaf(word, i):
        if word in TAGS: return labels[i,TAGS.index(word)].item()
        columns = {'ball': [0, 1], 'racquet': [2], 'dog': [3, 6], 'crane': [4, 5], 'golf ball': [1]}[word]
        return sum(shares[i,c].item() for c in columns)
    rows,scores = search(table, written(tree), 60)
    want = {i: value(tree, lambda w: leaf(w, i), FUZZY) for i in range(60)}
    assert list(scores) == sorted(scores, reverse=True) and set(rows.tolist()) >= {i for i,v in want.items() if v > 1e-5}
    for i,s in zip(rows.tolist(), scores.tolist()): assert abs(want[i]-s) < 1e-5

@given(TREES, st.permutations(range(40)), st.integers(1, 50))
def test_order_of_rows_does_not_matter(tree, order, k):
    one,two = (table_of(labels[:40], shares[:40], order=o) for o in (None, torch.tensor(order)))
    (a,p),(b,q) = (search(t, written(tree), k) for t in (one, two))
    assert torch.equal(p, q) and [one.fnames[i] for i in a] == [two.fnames[i] for i in b]

@given(st.text(max_size=40) | st.lists(st.sampled_from([*'()|&-+.,"\' \\', 'dog', 'person', 'ball', 'not', 'f""', '1']), max_size=12).map(''.join))
def test_any_text_is_searched_or_refused(text):
    try: rows,scores = search(table, text)
    except InputError as e: assert str(e).startswith(('expected an expression', 'expected tags or concepts')) and '\n' not in str(e)
    else: assert len(rows) == len(scores) <= 10

def test_unknown_words():
    "They are answered with words that are alike, written as they have to be; long ones are cut."
    plain = FeatureTable(table.x, labels, TAGS, table.is_valid, table.novel)
    for t,word,said in ((table, 'prson', 'use for example person'), (table, '"trafic light"', 'use for example "traffic light"'),
                        (table, 'clas', 'use for example "class"'), (plain, 'ball', 'expected tags of the table'), (plain, 'x'*10**5, 'x'*80+"'; use for example person, \"traffic light\"")):
        with pytest.raises(InputError) as e: search(t, word)
        assert said in str(e.value) and len(str(e.value)) < 300
    assert meaning(table, 'HÜNDIN').names == ['Hündin'] and meaning(table, 'T_Shirt').names == ['t-shirt']

def test_labels_that_are_not_known():
    "In validation rows, a tag is as probable as a classifier says; labels there are not looked at."
    x = torch.cat([labels, .05*torch.rand(60, 4)], 1)
    valid = torch.arange(60) >= 40
    wrong = torch.where(valid[:,None], 1-labels, labels)
    t = FeatureTable(x, wrong, TAGS, valid, torch.arange(len(TAGS)) > 5)
    p = degrees(t, 'person', torch.arange(60))
    assert torch.equal(p[:40], labels[:40,0]) and torch.equal(p[40:] > .5, labels[40:,0] > 0)

def test_words_are_the_largest_changes():
    rng = random.Random(0)
    for _ in range(50):
        h,base = ([rng.random() for _ in CONCEPTS] for _ in range(2))
        order = sorted(range(len(h)), key=lambda i: base[i]-h[i])
        want = list(dict.fromkeys(CONCEPTS[i].split(',')[0] for i in order[:4] if h[i] > base[i]))
        assert words_of(torch.tensor(h), CONCEPTS, 4, torch.tensor(base)) == want

@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_can_be_read(kind):
    "Also through a choice of blocks, and without changing what is read."
    t = table.choose(dict(concepts=1., pooled=.5))
    ops = set_ops(kind, t.width).adapt(t.x, torch.nn.Linear(t.width, 5).requires_grad_(False))
    said = describe(t, ops, torch.tensor([[0, 1], [2, 3]]))
    x,y = (features_of(t, [i], ops) for i in (0, 1))
    with torch.no_grad(): words = read_words(t)(ops('union', x.x, y.x))[0]
    assert said[0]['x ∪ y'] == (', '.join(words) or '–') and repr(x | y).endswith(said[0]['x ∪ y'])
    assert list(said[0]) == ['x', 'y', 'x ∪ y', 'x ∩ y', 'x ∖ y']

def test_a_run_tells_words():
    "`evaluate_all` describes the pairs that the gallery shows; tables have them; a table without concepts has none."
    from laso.bench.results import tables
    from laso.bench.run import evaluate_all, shown_pairs
    from laso.bench.settings import BenchConfig
    labels,shares = drawn(90)
    t = table_of(labels, shares)
    t.is_valid[45:] = True
    ops,cfg = set_ops('analytic', t.width),BenchConfig(n_pairs=20)
    res = evaluate_all(t, ops, cfg)
    assert res['words'] == describe(t, ops, shown_pairs(t, cfg.seed)) and len(res['words']) == 3
    said = tables(res)['What the operators say']
    assert said.columns.tolist() == ['y', 'x ∪ y', 'x ∩ y', 'x ∖ y'] and len(said) == 3
    plain = FeatureTable(t.x, labels, TAGS, t.is_valid, t.novel)
    assert 'What the operators say' not in tables(evaluate_all(plain, ops, cfg))
