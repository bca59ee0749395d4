"The label algebra: what Python's sets say, the laws of Boolean algebra, and what is no label set is refused."
import pytest, torch
from hypothesis import given, settings, strategies as st
from laso.core import OPS, label_intersection, label_names, label_op, label_subtraction, label_union, multi_hot
from laso.ops.evaluation import Expression, expression_labels
from laso.train.losses import targets
from laso.ops.kinds import Features, set_ops
from laso.evaluate.metrics import label_iou

few = settings(deadline=None, max_examples=60)
VOCAB = [f'class {i}' for i in range(7)]
names = st.lists(st.sampled_from(VOCAB), unique=True)
batches = st.lists(st.tuples(names, names, names), min_size=1, max_size=5)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])

u,i,s = label_union,label_intersection,label_subtraction

def without(a):
    "The complement: what all classes show and `a` does not."
    return s(torch.ones_like(a), a)

LAWS = {
    'De Morgan of the union':        lambda x,y,z: (without(u(x, y)), i(without(x), without(y))),
    'De Morgan of the intersection': lambda x,y,z: (without(i(x, y)), u(without(x), without(y))),
    'De Morgan, relative to x':      lambda x,y,z: (s(x, i(y, z)), u(s(x, y), s(x, z))),
    'absorption by the union':       lambda x,y,z: (u(x, i(x, y)), x),
    'absorption by the intersection': lambda x,y,z: (i(x, u(x, y)), x),
    'x\\y = x∩¬y':                   lambda x,y,z: (s(x, y), i(x, without(y))),
    'x\\(x\\y) = x∩y':               lambda x,y,z: (s(x, s(x, y)), i(x, y)),
    'x = (x\\y)∪(x∩y)':              lambda x,y,z: (u(s(x, y), i(x, y)), x),
    'disjoint parts':                lambda x,y,z: (s(x, y) + i(x, y) + s(y, x), u(x, y)),
    'union commutes':                lambda x,y,z: (u(x, y), u(y, x)),
    'intersection commutes':         lambda x,y,z: (i(x, y), i(y, x)),
    'union associates':              lambda x,y,z: (u(u(x, y), z), u(x, u(y, z))),
    'intersection associates':       lambda x,y,z: (i(i(x, y), z), i(x, i(y, z))),
    'union distributes':             lambda x,y,z: (u(x, i(y, z)), i(u(x, y), u(x, z))),
    'intersection distributes':      lambda x,y,z: (i(x, u(y, z)), u(i(x, y), i(x, z))),
    'idempotence':                   lambda x,y,z: (u(x, x), i(x, x)),
    'double complement':             lambda x,y,z: (without(without(x)), x),
    'neutral elements':              lambda x,y,z: (u(x, s(x, x)), i(x, torch.ones_like(x))),
    'excluded middle':               lambda x,y,z: (u(x, without(x)), torch.ones_like(x)),
    'contradiction':                 lambda x,y,z: (i(x, without(x)), torch.zeros_like(x)),
    'one after the other':           lambda x,y,z: (s(s(x, y), z), s(x, u(y, z))),
}

def rows(batch, dtype=torch.float32): return [multi_hot(list(o), VOCAB).to(dtype) for o in zip(*batch)]

@settings(deadline=None, max_examples=150)
@given(batches, dtypes)
def test_laws(batch, dtype):
    for law,sides in LAWS.items():
        left,right = sides(*rows(batch, dtype))
        assert torch.equal(left, right) and left.dtype == dtype, law

@few
@given(batches, dtypes)
def test_same_as_pythons_sets(batch, dtype):
    x,y,_ = rows(batch, dtype)
    for op,of_sets in zip(OPS, (set.union, set.intersection, set.difference)):
        got = label_op(op, x, y)
        assert ((got == 0) | (got == 1)).all() and got.shape == x.shape
        for row,(a,b,_) in zip(got, batch): assert set(label_names(row, VOCAB)) == of_sets(set(a), set(b))

@few
@given(batches)
def test_all_that_combine_labels_agree(batch):
    "The loss, `x | y` of features, expressions and the operations themselves mean the same label sets."
    x,y,_ = rows(batch)
    fx,fy = (Features(torch.zeros(len(x), 1), set_ops('analytic', 1), o) for o in (x, y))
    t,written = targets(x, y), dict(zip(OPS, (('x | y', fx | fy), ('x & y', fx & fy), ('x - y', fx - fy))))
    for op,(text,f) in written.items():
        want = label_op(op, x, y)
        assert torch.equal(t[op], want) and torch.equal(t[f'{op}_yx'], label_op(op, y, x))
        assert torch.equal(f.labels, want) and torch.equal(expression_labels(Expression(text), torch.stack([x, y], 1)), want)
    for law,a,b in (('sub_sub', s(s(x, y), y), s(s(y, x), x)), ('sub_int', s(x, i(x, y)), s(y, i(y, x))),
                    ('int_int', i(i(x, y), y), i(i(y, x), x)), ('union_union', u(u(x, y), y), u(u(y, x), x))):
        assert torch.equal(t[law], a) and torch.equal(t[f'{law}_yx'], b)
    assert torch.equal(t['x_mc'], u(s(x, y), i(x, y))) and torch.equal(t['y_mc'], u(s(y, x), i(x, y)))

@few
@given(batches)
def test_overlap(batch):
    x,y,_ = rows(batch)
    overlap = label_iou(x, y)
    assert torch.equal(overlap, label_iou(y, x)) and torch.equal(overlap == 1, (x == y).all(1))
    assert torch.equal(overlap == 0, (i(x, y).sum(1) == 0) & (u(x, y).sum(1) > 0))
    for nearer in (i(x, y), u(x, y)): assert (overlap <= label_iou(x, nearer)+1e-6).all()

@few
@given(batches)
def test_names_come_back(batch):
    for l in rows(batch): assert torch.equal(multi_hot([label_names(r, VOCAB) for r in l], VOCAB), l)

@few
@given(batches, st.sampled_from(OPS), st.sampled_from([.5, -1., 2., float('inf')]), st.booleans())
def test_nothing_else_is_let_in(batch, op, wrong, second):
    x,y,_ = rows(batch)
    (y if second else x)[-1,-1] = wrong
    with pytest.raises(ValueError, match='expected multi-hot labels'): label_op(op, x, y)
    with pytest.raises(ValueError, match='expected ly of shape'): label_op(op, torch.zeros(2, 3), torch.zeros(2, 1))
