"Metrics and losses in every number format against exact references, and every gradient against finite differences."
from decimal import Decimal, localcontext
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from laso.core import OPS
from laso.evaluate.metrics import average_precision, class_scores, decision_scores, label_iou, mean_ap, pr_curves
from laso.evaluate.retrieval import nearest
from laso.evaluate.statistics import mean_ci
from laso.lab.mlp import HeadLinear
from laso.ops.kinds import KINDS, set_ops
from laso.ops.logic import LogicNet
from laso.train.losses import ALIKE, TERMS, LaSO, LaSOLoss, LossWeights, focal_loss
from test_metrics import problems, reference, same, ties

DTYPES = torch.bfloat16, torch.float16, torch.float32, torch.float64
EXACT = 1e-6   # metrics are fractions of counts: the same in every format, up to the rounding of float32
RTOL = {torch.float64: 1e-12} | dict.fromkeys(DTYPES[:3], 1e-5)   # losses: 16 bits are computed in float32
LARGE = 1e15   # losses are finite up to here, and in float16 up to its largest number

few = settings(deadline=None, max_examples=30)
in_every_format = pytest.mark.parametrize('dtype', DTYPES, ids=[str(d)[6:] for d in DTYPES])

def largest(dtype, most=LARGE): return min(most, torch.finfo(dtype).max)

# Metrics

@st.composite
def scored(draw, dtype):
    "Scores in `dtype` from ties to the largest numbers that it has, targets with empty and with full classes."
    scores,targets = draw(problems(st.one_of(st.floats(-1, 1, width=32), ties)))
    scale = draw(st.sampled_from([1., 30., torch.finfo(dtype).max]))
    return (scores.double()*scale).to(dtype), targets

@in_every_format
@few
@given(st.data())
def test_average_precision(dtype, data):
    scores,targets = data.draw(scored(dtype))
    want = reference(scores.double(), targets)
    same(average_precision(scores, targets), want, atol=EXACT)
    same(mean_ap(scores, targets), want.nanmean(-1), atol=EXACT)

def by_sets(decided, true):
    "Macro F1, micro F1 and IoU of one head, from Python's sets of (image, class)."
    p,t = ({(i,c) for i,c in np.argwhere(o)} for o in (decided, true))
    f1 = lambda a,b: 2*len(a & b)/max(1, len(a)+len(b))
    of = lambda o,k,v: {e for e in o if e[k] == v}
    macro = [f1(of(p, 1, c), of(t, 1, c)) for c in range(true.shape[1]) if of(t, 1, c)]
    iou = [len(of(p & t, 0, i))/len(of(p | t, 0, i)) if of(p | t, 0, i) else 1 for i in range(len(true))]
    return np.mean(macro) if macro else np.nan, f1(p, t), np.mean(iou)

@in_every_format
@few
@given(st.data(), st.sampled_from([0., .3]))
def test_decisions(dtype, data, threshold):
    scores,targets = data.draw(scored(dtype))
    got = decision_scores(scores, targets, threshold=threshold)
    decided = scores.to(torch.promote_types(dtype, torch.float32)).numpy() > threshold
    want = [by_sets(*o) for o in zip(decided, targets.expand(scores.shape).numpy())]
    same(torch.stack([got[k] for k in ('macro_f1', 'micro_f1', 'iou')], 1).double(), torch.tensor(want).double(), atol=EXACT)

@in_every_format
def test_rows_of_classes_and_curves(dtype):
    "A class without a positive, one without a decision, one that all images show; half of the scores tie."
    torch.manual_seed(0)
    scores,targets = (torch.randn(40, 3)*2).round().to(dtype), (torch.rand(40, 3) < .5).float()
    scores[:,1],targets[:,0],targets[:,2] = -1, 0, 1
    rows,curves = class_scores(scores, targets, list('abc')), pr_curves(scores, targets, list('abc'))
    assert rows.loc['a'].isna().tolist() == [True, False, True, False] and rows.loc['a'].precision == 0
    assert np.isnan(rows.loc['b'].precision) and rows.loc['b'].recall == 0
    assert rows.loc['c'].ap == rows.loc['c'].precision == 1
    assert set(curves['class']) == {'b', 'c'} and (curves[curves['class'] == 'c'].precision == 1).all()

@in_every_format
@pytest.mark.parametrize('n', [1, 256, 257, 2049, 5000])
def test_label_sets_are_counted_exactly(dtype, n):
    a,b = torch.ones(n).to(dtype),(torch.arange(n) % 3 > 0).to(dtype)
    same(label_iou(a, b).double(), torch.tensor((n-len(range(0, n, 3)))/n).double(), atol=EXACT)

@in_every_format
@few
@given(st.data())
def test_nearest_rows(dtype, data):
    "Whole numbers, so that many distances tie exactly; the lowest row comes first."
    whole = lambda n: data.draw(arrays(np.int64, (n, 2), elements=st.integers(-3, 3)))
    n,scale = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([1., 2.**(40 if dtype != torch.float16 else 13)]))
    q,b = whole(3),whole(n)
    dist,rows = nearest(*(torch.from_numpy(o).double().mul(scale).to(dtype) for o in (q, b)), k=n)
    want = np.square(q[:,None]-b).sum(-1)
    assert rows.tolist() == np.argsort(want, axis=1, kind='stable').tolist()
    np.testing.assert_allclose(dist.double(), np.sort(np.sqrt(want), axis=1)*scale, rtol=1e-6)

@in_every_format
def test_intervals(dtype):
    v = torch.tensor([.1, .2, .3]).to(dtype)
    mean,half = mean_ci(v)
    x = v.double().numpy()
    np.testing.assert_allclose((mean, half), (x.mean(), 4.302652729911275*x.std(ddof=1)/3**.5), rtol=1e-9)
    assert mean_ci(v[:1].expand(9)).half == 0

# Losses

def exact_focal(z, t, gamma):
    "One element with sixty digits: (1-p)^γ times -log p, of the probability p of the right answer."
    with localcontext() as c:
        c.prec,one = 60,Decimal(1)
        z = Decimal(z) if t else -Decimal(z)   # the logit of the right answer
        e = (-abs(z)).exp()
        miss = e/(one+e) if z > 0 else one/(one+e)
        return float((miss**Decimal(gamma) if gamma else one)*((one+e).ln() + max(-z, 0)))

@st.composite
def logits_and_targets(draw, dtype):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    usual = st.one_of(st.floats(-40, 40, width=16), st.sampled_from([0., 1e-4, 12., 88., -104.]))
    some = st.one_of(usual, st.sampled_from([largest(dtype), -largest(dtype), 1e4, -1e4]))
    z,t = draw(arrays(np.float64, shape, elements=some)), draw(arrays(np.float64, shape, elements=st.sampled_from([0., 1.])))
    return torch.from_numpy(z).to(dtype), torch.from_numpy(t).to(dtype)

@in_every_format
@few
@given(st.data(), st.sampled_from([0., .5, 1., 2., 5.]))
def test_focal_loss(dtype, data, gamma):
    z,t = data.draw(logits_and_targets(dtype))
    z.requires_grad_()
    loss = focal_loss(z, t, gamma)
    loss.backward()
    want = np.mean([exact_focal(a, b, gamma) for a,b in zip(z.flatten().tolist(), t.flatten().tolist())])
    np.testing.assert_allclose(loss.item(), want, rtol=RTOL[dtype], atol=1e-30)
    assert loss.dtype == torch.promote_types(dtype, torch.float32) and z.grad.isfinite().all()
    if gamma == 0: assert (z.grad.double().abs()*z.numel() <= 1+1e-2).all()   # of the cross-entropy it is p-t

NAMES = list(dict.fromkeys([o for v in TERMS.values() for o in v] + [o for v in ALIKE.values() for p in v for o in p]))
RIGHT = dict(x=lambda x,y: x, y=lambda x,y: y, union=lambda x,y: x | y, intersection=lambda x,y: x & y,   # the label sets
    subtraction=lambda x,y: x & ~y, x_mc=lambda x,y: x, y_mc=lambda x,y: y, sub_sub=lambda x,y: x & ~y,   # that they have
    sub_int=lambda x,y: x & ~y, sub_int2=lambda x,y: x & ~y, int_int=lambda x,y: x & y, union_union=lambda x,y: x | y)

def right(name, x, y): return RIGHT[name[:-3]](y, x) if name.endswith('_yx') else RIGHT[name](x, y)

@in_every_format
@pytest.mark.parametrize('focal', [False, True])
@pytest.mark.parametrize('l1', [False, True])
@few
@given(st.data())
def test_every_term(dtype, focal, l1, data):
    "All outputs are arbitrary numbers here, from none to the largest; one class may be empty, or shown by all."
    bs,n_lbl,d,unit = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), 2, data.draw(st.sampled_from([1., 20.]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    numbers = lambda n: torch.from_numpy(rng.choice([0., 1., -3., 20., largest(dtype), -largest(dtype)], (bs, n))).to(dtype)
    f,z,(lx,ly) = {k: numbers(d) for k in NAMES}, {k: numbers(n_lbl) for k in NAMES}, rng.random((2, bs, n_lbl)) < .5
    f_ = {k: v.double().numpy()/unit for k,v in f.items()}
    want = {}
    for term,names in TERMS.items():
        means = [np.mean([exact_focal(a, b, 2*focal) for a,b in zip(z[k].flatten().tolist(), right(k, lx, ly).flatten())])
                 for k in names]
        want[term] = sum(means)
    for term,pairs in ALIKE.items():
        want[term] = sum(np.mean(np.abs(f_[a]-f_[b]) if l1 else (f_[a]-f_[b])**2) for a,b in pairs)
    loss = LaSOLoss(LossWeights(**dict.fromkeys(want, 1.)), focal=focal, l1=l1, unit=unit)
    of_labels = data.draw(st.sampled_from(DTYPES))
    total = loss(dict(features=f, logits=z), *(torch.from_numpy(o).to(of_labels) for o in (lx, ly)))
    got = {k: v.item() for k,v in loss.terms.items()}
    assert got.keys() == want.keys()
    for k in want: np.testing.assert_allclose(got[k], want[k], rtol=RTOL[dtype], atol=1e-30, err_msg=k)
    np.testing.assert_allclose(total.item(), sum(want.values()), rtol=RTOL[dtype])

# Gradients, in float64

def operators(kind, d=4):
    "Small operators without dropout, none of whose weights is special."
    torch.manual_seed(0)
    known = KINDS[kind].options()
    ops = set_ops(kind, d, **{k: v for k,v in dict(h=5, p=0., k=3).items() if k in known}).double()
    with torch.no_grad():
        for p in ops.parameters(): p.add_(.3*torch.randn_like(p))
        for m in ops.modules():
            if isinstance(m, LogicNet):
                directions = (torch.randn(2, d), torch.randn(2)), (torch.randn(1, d), torch.randn(1))
                m.adapt(directions, length=m.net.scale, mean=m.net.mean, dirs=m.net.dirs,
                        typical=torch.ones(len(m.net.mean)))
    return ops

def away_from_ties(bs=4, d=4):
    "Features of pairs, positive, that differ in every element."
    torch.manual_seed(1)
    fx = torch.rand(bs, d).double() + .5
    return fx, fx + (.1+.3*torch.rand(bs, d).double())*torch.randn(bs, d).double().sign()

def check_gradients(model, f, *inputs, **kwargs):
    "Those of `f(model's outputs)` with respect to all inputs and weights."
    names,weights = zip(*model.named_parameters()) if list(model.parameters()) else ((), ())
    weights = [w.detach().clone().requires_grad_() for w in weights]
    inputs = [o.clone().requires_grad_() for o in inputs]
    call = lambda *o: f(functional_call(model, dict(zip(names, o[len(inputs):])), tuple(o[:len(inputs)])))
    out = call(*inputs, *weights)
    grads = torch.autograd.grad(out.square().sum(), inputs+weights, allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in grads)
    assert gradcheck(call, (*inputs, *weights), atol=1e-6, rtol=1e-4, **kwargs)

@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('op', OPS)
@pytest.mark.parametrize('kind', KINDS)
def test_gradients_of_operators(kind, op, train):
    model = getattr(operators(kind), op).train(train)
    check_gradients(model, lambda out: out, *away_from_ties(), fast_mode=True)
    fx,fy = (o.requires_grad_() for o in away_from_ties())
    assert gradcheck(model, (fx, fy), atol=1e-6, rtol=1e-4)   # element by element

def labels(): return (torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(2)) < .5).double()

@pytest.mark.parametrize('options', [{}, dict(focal=True, l1=True, unit=3.)], ids=['usual', 'focal-l1'])
@pytest.mark.parametrize('term', [*TERMS, *ALIKE])
def test_gradients_of_terms(term, options):
    "Through a network that computes its first layer in halves and runs pairs in both orders in one batch."
    model = LaSO(operators('residual'), nn.Linear(4, 3).double(), tautologies=True)
    loss = LaSOLoss(LossWeights(**{o: float(o == term) for o in (*TERMS, *ALIKE)}), **options)
    check_gradients(model, lambda out: loss(out, *labels()), *away_from_ties(), fast_mode=True)
    assert list(loss.terms) == [term]

@pytest.mark.parametrize('kind', KINDS)
def test_gradients_of_the_whole_loss(kind):
    model = LaSO(operators(kind), nn.Linear(4, 3).double(), tautologies=True)
    loss = LaSOLoss(LossWeights(**{o: 1. for o in (*TERMS, *ALIKE)}), unit=2.)
    check_gradients(model, lambda out: loss(out, *labels()), *away_from_ties(), fast_mode=True)

@pytest.mark.parametrize('gamma', [0., .5, 1., 2.])
def test_gradients_of_the_focal_loss(gamma):
    z = torch.tensor([[-300., -40, -2, -.1, 0], [.1, 2, 40, 300, 1]]).double().requires_grad_()
    for t in (torch.zeros(2, 5), torch.ones(2, 5)): assert gradcheck(lambda z: focal_loss(z, t.double(), gamma), (z,))

def test_gradients_of_a_layer_for_many_heads():
    "Whose gradient is written by hand."
    torch.manual_seed(0)
    layer,x = HeadLinear(2, 3, 4).double(),torch.randn(2, 5, 3).double().requires_grad_()
    assert gradcheck(layer, (x,))
    out = layer(x)
    layer.weight.grad = None
    out.square().sum().backward()
    w = layer.weight.detach().clone().requires_grad_()
    (x.detach() @ w + layer.bias.detach()).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, w.grad, rtol=1e-12, atol=0)

@pytest.mark.parametrize('kind', KINDS)
def test_training_in_bfloat16(kind):
    "The loss within 2 % and the gradient within 15 degrees of those in float64."
    torch.manual_seed(0)
    ops = operators(kind, 16).float()
    model,(fx,fy) = LaSO(ops, nn.Linear(16, 3)),(o.float() for o in away_from_ties(32, 16))
    l = (torch.rand(2, 32, 3) < .5).float()
    def step(model, *xs):
        loss = LaSOLoss()(model(*xs), *l.to(xs[0].dtype))
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return loss.item(), torch.cat([g.flatten().double() for g in grads if g is not None])
    model.bf16 = True
    low,g_low = step(model, fx, fy)
    model.bf16 = False
    high,g_high = step(model.double(), fx.double(), fy.double())
    assert abs(low/high-1) < .02 and torch.cosine_similarity(g_low, g_high, dim=0) > .966
