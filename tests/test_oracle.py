"""The method as its authors' code has it, written out again in plain loops over numbers: what this package computes has
to agree, and both with numbers that were recorded."""
import json, math, random
from importlib.resources import files
import numpy as np, pytest, torch
from torch import nn
from laso.core import OPS
from laso.data.labels import draw_pairs
from laso.evaluate.retrieval import retrieval_iou
from laso.ops.networks import PaperNet, ResidualNet
from laso.ops.kinds import set_ops
from laso.train.losses import LaSO, LaSOLoss, LossWeights

def numbers(n, seed):
    "Numbers between -1 and 1 that do not depend on the version of a library (a congruential generator)."
    x,res = seed,[]
    for _ in range(n):
        x = (1103515245*x + 12345) % 2**31
        res.append(2*x/2**31-1)
    return res

def filled(net, seed=1):
    "A network in evaluation mode whose weights are `numbers`; variances are positive."
    for i,(k,v) in enumerate(sorted(net.state_dict().items())):
        if not v.is_floating_point(): continue
        x = torch.tensor(numbers(v.numel(), seed+i), dtype=torch.float64).view(v.shape)
        v.copy_(x.abs()+.5 if 'running_var' in k else x)
    return net.eval().requires_grad_(False)

# Forward passes

def linear(sd, name, x): return [sum(w*v for w,v in zip(row, x))+b for row,b in
                                 zip(sd[f'{name}.weight'].tolist(), sd[f'{name}.bias'].tolist())]

def norm(sd, name, x):
    m,v,g,b = (sd[f'{name}.{k}'].tolist() for k in ('running_mean', 'running_var', 'weight', 'bias'))
    return [(o-p)/math.sqrt(q+1e-5)*r+s for o,p,q,r,s in zip(x, m, v, g, b)]

def leaky(x): return [o if o > 0 else .2*o for o in x]

def paper_forward(sd, a, b):
    x = leaky(norm(sd, '1', linear(sd, '0', a+b)))
    x = leaky(norm(sd, '5', linear(sd, '4', x)))
    return [math.tanh(o) for o in linear(sd, '8', x)]

ANALYTIC = dict(union=lambda a,b: a+b, intersection=min, subtraction=lambda a,b: max(a-b, 0))

def residual_forward(sd, op, n_blocks, gated, a, b):
    "There the analytic union is the sum."
    r = [ANALYTIC[op](p, q) for p,q in zip(a, b)]
    x = leaky(norm(sd, 'first.1', linear(sd, 'first.0', a+b)))
    for i in range(n_blocks):
        g = 1/(1+math.exp(-linear(sd, f'gates.{i}', x)[0])) if gated else 1
        x = leaky([o+g*p for o,p in zip(norm(sd, f'blocks.{i}.1', linear(sd, f'blocks.{i}.0', x)), r)])
    return [max(o, 0) for o in linear(sd, 'last', x)]

A,B = numbers(5, 7),numbers(5, 11)
AB = [torch.tensor([o], dtype=torch.float64) for o in (A, B)]
# sums of the outputs
PAPER_SUM,RESIDUAL_SUMS = 1.442674540,dict(union=2.413601257, intersection=.752414078, subtraction=2.976297752)

@pytest.mark.parametrize('op', OPS)
def test_paper_network(op):
    net = filled(PaperNet(op, 5, h=6).double())
    want = paper_forward(net.state_dict(), A, B)
    np.testing.assert_allclose(net(*AB)[0], want, atol=1e-12)
    assert sum(want) == pytest.approx(PAPER_SUM, abs=1e-6)

@pytest.mark.parametrize('op,n_blocks,gated', [('union', 1, False), ('intersection', 2, False), ('subtraction', 2, True)])
def test_residual_network(op, n_blocks, gated):
    net = filled(ResidualNet(op, 5, n_blocks=n_blocks, gated=gated).double(), seed=n_blocks)
    want = residual_forward(net.state_dict(), op, n_blocks, gated, A, B)
    np.testing.assert_allclose(net(*AB)[0], want, atol=1e-12)
    assert sum(want) == pytest.approx(RESIDUAL_SUMS[op], abs=1e-6)

# Losses

LOSSES = dict(code=20.931659172, paper=21.267592829)

def bce(z, t): return sum(math.log1p(math.exp(-o if y else o)) for o,y in zip(z, t))/len(z)
def mse(a, b): return sum((p-q)**2 for p,q in zip(a, b))/len(a)

def released_loss(f, head, a, b, la, lb, form):
    "All terms of the released training with its weights of one, of one pair; `f(op, x, y)` is an operator."
    s,i,u = (lambda x,y,op=op: f(op, x, y) for op in ('subtraction', 'intersection', 'union'))
    ab,ba = i(a, b),i(b, a)
    s_ab,s_ba,u_ab,u_ba = s(a, b),s(b, a),u(a, b),u(b, a)
    out_a = u(s(a, ba), ab) if form == 'code' else u(s_ab, ab)
    out_b = u(s(b, ab), ba) if form == 'code' else u(s_ba, ab)
    li,lu = [p*q for p,q in zip(la, lb)],[max(p, q) for p,q in zip(la, lb)]
    ls,ls_ba = [p*(1-q) for p,q in zip(la, lb)],[q*(1-p) for p,q in zip(la, lb)]
    called = [(a, la), (b, lb), (out_a, la), (out_b, lb), (s_ab, ls), (s_ba, ls_ba), (u_ab, lu), (u_ba, lu), (ab, li), (ba, li),
              (s(s_ab, b), ls), (s(s_ba, a), ls_ba), (s(a, ab), ls), (s(b, ab), ls_ba), (s(b, ba), ls_ba), (s(a, ba), ls),
              (u(u_ab, b), lu), (u(u_ba, a), lu), (i(ab, b), li), (i(ba, a), li)]
    alike = [(a, out_a), (b, out_b), (u_ab, u_ba), (ab, ba), (s_ab, s(s_ab, b)), (s_ab, s(a, ab)), (s_ab, s(a, ba)),
             (s_ba, s(s_ba, a)), (s_ba, s(b, ab)), (s_ba, s(b, ba))]
    return sum(bce(head(x), t) for x,t in called) + sum(mse(x, y) for x,y in alike)

@pytest.mark.parametrize('form', ['code', 'paper'])
def test_loss(form):
    ops = filled(set_ops('residual', 5, n_blocks=2).double(), seed=3)
    head = filled(nn.Linear(5, 3).double(), seed=50)
    la,lb = [1,0,1],[1,1,0]
    def f(op, x, y): return residual_forward(getattr(ops, op).state_dict(), op, 2, False, x, y)
    want = released_loss(f, lambda x: linear({f'h.{k}': v for k,v in head.state_dict().items()}, 'h', x), A, B, la, lb, form)
    model = LaSO(ops, head, reconstruct=form, tautologies=True).eval()
    loss = LaSOLoss(LossWeights(tautology=1, tautology_cls=1), unit=1.)
    got = loss(model(*AB), *(torch.tensor([o], dtype=torch.float64) for o in (la, lb)))
    assert got.item() == pytest.approx(want, rel=1e-9)
    assert want == pytest.approx(LOSSES[form], rel=1e-6)

# Pairs

FLAT = [.783, .784, 3.431]

def released_pairs(labels, n, seed):
    "Pairs by the released procedure: image number i of the class that was drawn least, any image of its least drawn class."
    rng,n_lbl = random.Random(seed),len(labels[0])
    images = [[i for i,l in enumerate(labels) if l[c]] for c in range(n_lbl)]
    count,res = [0]*n_lbl,[]
    for i in range(n):
        c = rng.randrange(n_lbl)
        for d in range(n_lbl):
            if count[d] < count[c]: c = d
        x = images[c][i % len(images[c])]
        shown = [d for d in range(n_lbl) if labels[x][d]]
        for d in shown: count[d] += 1
        y = rng.choice(images[min(shown, key=lambda d: count[d])])
        for d in range(n_lbl): count[d] += labels[y][d]
        res.append((x, y))
    return res,count

def long_tailed(n=1500, n_lbl=20):
    "Labels of images, the first class the most frequent."
    u = iter(numbers(n*n_lbl, 3))
    rows = [[int((next(u)+1)/2 < .5/(c+1)) for c in range(n_lbl)] for _ in range(n)]
    return [r for r in rows if any(r)]

def test_pair_histogram():
    "The rarest class, one in the middle and the most frequent, relative to the mean: as the released procedure draws them."
    labels = long_tailed()
    _,theirs = released_pairs(labels, 3000, 0)
    pairs = draw_pairs(torch.tensor(labels).float(), 3000, rng=np.random.default_rng(0))
    ours = torch.tensor(labels)[pairs].sum((0, 1)).tolist()
    def flat(count): return np.sort(count)[[0, 10, 19]]/np.mean(count)
    np.testing.assert_allclose(flat(ours), flat(theirs), rtol=.05)
    np.testing.assert_allclose(flat(theirs), FLAT, rtol=.02)

# Retrieval

def released_retrieval(queries, wanted, database, sets, sources):
    "Best IoU among 1, 3 and 5 of the 7 nearest but the sources; a set that only a source has counts as there."
    there,res = {tuple(s) for s in sets},[]
    for q,want,ban in zip(queries, wanted, sources):
        if tuple(want) not in there or not any(want): continue
        near = sorted(range(len(database)), key=lambda j: math.dist(q, database[j]))[:7]
        near = [j for j in near if j not in ban]
        def iou(j): return sum(p*q for p,q in zip(want, sets[j]))/sum(max(p, q) for p,q in zip(want, sets[j]))
        res.append([max(map(iou, near[:k])) for k in (1, 3, 5)])
    return np.array(res)

def test_retrieval_rule():
    u = iter(numbers(10**4, 5))
    sets = [[int(next(u) > .2) for _ in range(4)] for _ in range(40)]
    sets = [s for s in sets if any(s)]
    feats = [[next(u) for _ in range(6)] for _ in sets]
    pairs = [(i, (7*i+3) % len(sets)) for i in range(len(sets)) if i != (7*i+3) % len(sets)]
    queries = [[max(p, q) for p,q in zip(feats[i], feats[j])] for i,j in pairs]
    wanted = [[max(p, q) for p,q in zip(sets[i], sets[j])] for i,j in pairs]
    ref = released_retrieval(queries, wanted, feats, sets, pairs)
    tensors = [torch.tensor(o, dtype=torch.float64) for o in (queries, wanted, feats, sets)]
    got = retrieval_iou(*tensors, exclude=torch.tensor(pairs), sources_count=True)
    assert [got[f'iou@{k}'] for k in (1, 3, 5)] == pytest.approx(ref.mean(0).tolist(), abs=1e-9)
    assert (got['n_queries'], got['n_left_out']) == (len(ref), len(pairs)-len(ref)) and len(ref) == 27
    strict = retrieval_iou(*tensors, exclude=torch.tensor(pairs))
    assert strict['n_left_out'] > got['n_left_out']

# Support sets and batches

def test_batches_of_the_authors_support_sets():
    "Synthesised vectors a batch, from their twenty sets: all pairs over n/4 batches, with five shots a quarter of that."
    from laso.lab.mlp import n_made
    ep,found = json.loads((files('laso')/'laso_episodes.json').read_text()),{}
    for k in (1, 5):
        for run in ep[f'{k}-shot']:
            n = len(run['images'])
            y = torch.zeros(n, 16)
            for c,(_,images) in enumerate(sorted(run['by_class'].items(), key=lambda o: int(o[0]))):
                for j in images: y[run['images'].index(j),c] = 1
            count = sum(1 for a in range(n) for b in range(a+1, n))
            want = int(count/(n/4)) if k == 1 else int(count/(n/4)/4)
            assert n_made(y) == want
            found.setdefault(k, []).append(want)
    assert {k: (min(v), max(v)) for k,v in found.items()} == {1: (22, 30), 5: (27, 31)}

def test_what_a_batch_holds(monkeypatch):
    "Four real vectors, each of the class that was drawn least, and different pairs; as many steps as 50 epochs have."
    from laso.lab import mlp
    y = torch.tensor([[1,0,0],[1,1,0],[1,0,0],[0,0,1],[1,0,0]]).float()
    x,seen = torch.arange(5.)[:,None].expand(5, 3).contiguous(),[]
    made = 10+torch.arange(10.)[:,None].expand(10, 3).contiguous(),torch.ones(10, 3)
    monkeypatch.setattr(mlp, '_train', lambda heads, batches, lr: seen.extend((b[0][0,:,0].tolist(), lr) for b in batches))
    mlp.fit_mlps([(x, y)], [made], h=4)
    assert len(seen) == 50*2 and {lr for _,lr in seen} == {.01}   # five images make two batches
    count = np.zeros(3)
    for batch,_ in seen:
        real,pairs = batch[:4],batch[4:]
        assert len(pairs) == len({*pairs}) == 8 and min(pairs) >= 10
        for i in real:
            least = np.flatnonzero(count == count.min()) if count.sum() > 20 else range(3)
            assert y[int(i)][list(least)].any()
            count += y[int(i)].numpy()
    seen.clear()
    mlp.fit_mlps([(x, y)], None, h=4, extra=8)
    assert {len(b) for b,_ in seen} == {12} and len(seen) == 100   # as large, all of them real

# Schedule

def test_steps_are_pytorchs():
    "fastai's SGD as the schedule sets it is torch.optim.SGD with momentum .9 and weight decay."
    from fastai.optimizer import SGD
    a,b = (filled(nn.Linear(4, 2).double(), 3).requires_grad_(True) for _ in range(2))
    ours,theirs = SGD(list(a.parameters()), .1, mom=.9, wd=.05, decouple_wd=False),torch.optim.SGD(b.parameters(), .1, .9, weight_decay=.05)
    for i in range(4):
        for net,opt in ((a, ours), (b, theirs)):
            net(torch.tensor([numbers(4, i)], dtype=torch.float64)).square().sum().backward()
            opt.step()
            opt.zero_grad()
    for p,q in zip(a.parameters(), b.parameters()): torch.testing.assert_close(p, q)

@pytest.mark.parametrize('lr', [None, 1e-9])
def test_released_schedule(lr):
    """Every rate of a training, by a loop: 0.0001 to 0.002 over three epochs, then halved after four epochs without a fall.
    With next to no rate the loss is chance, and the rate does fall."""
    from laso.features.table import toy_table
    from laso.train.recipes import ops_learner
    learn = ops_learner(toy_table(120, d=6), 'residual', released=True, dev=0., bs=64, n_blocks=2, schedule='plateau', n_pairs=192)
    with learn.no_bar(), learn.no_logging(): learn.fit_ops(16, lr)
    n,rate,best,wait,rest,want = len(learn.dls.train),lr or .002,math.inf,0,0,[]
    for epoch,loss in enumerate(float(v[0]) for v in learn.recorder.values):
        first = rate/20
        want += [first+(rate-first)*(epoch*n+i)/(3*n) if epoch < 3 else rate for i in range(n)]
        if epoch < 3: continue
        wait = 0 if loss < best or rest else wait+1
        best,rest = min(best, loss),max(0, rest-1)
        if wait == 4: rate,wait,rest = rate/2,0,1
    assert learn.recorder.lrs == pytest.approx(want, rel=1e-6)
    assert lr is None or rate < lr
    assert lr or want[0] == pytest.approx(1e-4)
    assert (learn.wd, learn.wd_bn_bias, learn.model.classifier.weight.requires_grad) == (1e-4, True, False)

# Images

def test_transform_input():
    "torchvision's Inception turns ImageNet's normalisation into (x-.5)/.5, which is ours for the released one."
    from types import SimpleNamespace
    from torchvision.models.inception import Inception3
    from laso.lab.official import HALF, IMAGENET
    x = torch.tensor(numbers(3*4*4, 2)).view(1, 3, 4, 4).abs()
    mean,std = (torch.tensor(o)[:,None,None] for o in IMAGENET.values())
    got = Inception3._transform_input(SimpleNamespace(transform_input=True), (x-mean)/std)
    mean,std = (torch.tensor(o)[:,None,None] for o in HALF.values())
    torch.testing.assert_close(got, (x-mean)/std, atol=1e-5, rtol=0)

@pytest.mark.parametrize('size', [(61, 40), (40, 61), (50, 50)])
def test_crops_are_torchvisions(size):
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, Resize
    from laso.data.crop import middle
    im = Image.frombytes('RGB', size, bytes(int(128+127*o) for o in numbers(3*size[0]*size[1], 9)))
    for scale,crop in ((Resize((35, 35)), 35), (Resize(30), 'short')):
        want = Compose([scale, CenterCrop(30)])(im)
        assert np.array_equal(np.asarray(middle(im, crop, 30)), np.asarray(want))
