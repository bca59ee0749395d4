"Average precision: the same as scikit-learn's on whatever hypothesis thinks of, and what must not change it."
import numpy as np, torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score
from laso.evaluate.metrics import average_precision, mean_ap, n_classes_with_positive, resampled_ap, resampled_map

few = settings(deadline=None, max_examples=60)

floats = st.floats(-1e6, 1e6, width=32)
ties = st.sampled_from([-1., -0., 0., .5, 1.])

@st.composite
def problems(draw, elements=st.one_of(floats, ties)):
    "Scores (n_heads, n, n_lbl), and targets for all heads or for each."
    heads,n,n_lbl = (draw(st.integers(1, m)) for m in (3, 30, 3))
    scores = draw(arrays(np.float32, (heads, n, n_lbl), elements=elements))
    shape = (heads, n, n_lbl) if draw(st.booleans()) else (n, n_lbl)
    targets = draw(arrays(np.float32, shape, elements=st.sampled_from([0., 1.])))
    return torch.from_numpy(scores), torch.from_numpy(targets)

def reference(scores, targets):
    "One call of scikit-learn for each class of each head."
    targets,res = targets.expand(scores.shape), torch.full((scores.shape[0], scores.shape[2]), torch.nan)
    for h in range(scores.shape[0]):
        for c in range(scores.shape[2]):
            if targets[h,:,c].any(): res[h,c] = float(average_precision_score(targets[h,:,c], scores[h,:,c]))
    return res

def same(a, b, atol=1e-6): torch.testing.assert_close(a, b, rtol=0, atol=atol, equal_nan=True)

@few
@given(problems())
def test_equals_sklearn(problem): same(average_precision(*problem), reference(*problem))

@few
@given(problems())
def test_mean_leaves_out_classes_without_a_positive(problem):
    scores,targets = problem
    same(mean_ap(scores, targets), reference(scores, targets).nanmean(-1))
    counted = (~average_precision(scores, targets).isnan()).sum(-1)
    assert (counted == n_classes_with_positive(targets)).all()

@few
@given(problems(), st.sampled_from([lambda x: 8*x, lambda x: x-3, lambda x: x**3, lambda x: x.exp(), torch.sigmoid]))
def test_increasing_functions_change_nothing(problem, f):
    "Of scores that stay distinct: whole numbers, which none of the functions rounds together in float64."
    scores,targets = (problem[0].double() % 10).round(), problem[1]
    same(average_precision(f(scores), targets), average_precision(scores, targets), atol=0)

@few
@given(problems(), st.randoms(use_true_random=False))
def test_order_of_images_changes_nothing(problem, rnd):
    scores,targets = problem
    perm = rnd.sample(range(scores.shape[1]), scores.shape[1])
    same(average_precision(scores[:,perm], targets[...,perm,:]), average_precision(scores, targets), atol=1e-7)

@few
@given(problems())
def test_between_worst_order_and_one(problem):
    "At least what the worst order gives, at most 1; 1 exactly when no other image scores as high as a positive."
    scores,targets = problem
    ap,t = average_precision(scores, targets), targets.expand(scores.shape)
    some = t.any(1)
    worst = average_precision(-2*t-torch.linspace(0, 1, t.shape[1])[:,None], t) # every positive below the rest, no ties
    assert ((ap >= worst-1e-6) & (ap <= 1))[some].all()
    lowest = scores.masked_fill(t == 0, torch.inf).amin(1)
    highest = scores.masked_fill(t == 1, -torch.inf).amax(1)
    assert ((ap == 1) == (lowest > highest))[some].all()

@few
@given(problems(), st.integers(2, 4))
def test_repeating_every_image_changes_nothing(problem, times):
    scores,targets = problem
    many = average_precision(torch.cat([scores]*times, -2), torch.cat([targets]*times, -2))
    same(many, average_precision(scores, targets))

@few
@given(problems())
def test_raising_a_positive_never_hurts(problem):
    scores,targets = problem
    t = targets.expand(scores.shape)
    better = scores+t*scores.abs().amax().clamp(min=1)
    some = t.any(1)
    assert (average_precision(better, t) >= average_precision(scores, t)-1e-6)[some].all()

def test_pieces_of_many_heads_are_put_together_in_order():
    torch.manual_seed(0)
    scores,targets = torch.randn(60, 2000, 20), (torch.rand(2000, 20) < .1).float() # two million a piece, 2.4 here
    whole = average_precision(scores, targets)
    for h in (0, 51, 52, 53, 59): same(whole[h], average_precision(scores[h], targets), atol=0)
    same(average_precision(scores.reshape(3, 4, 5, 2000, 20), targets).reshape(60, 20), whole, atol=0)

@few
@given(problems(), st.integers(0, 99))
def test_resamples_equal_sklearn_with_weights(problem, seed):
    "Every number a resample counts is a weight; a class that none of them shows is left out of the mean."
    scores,targets = problem[0], problem[1][0] if problem[1].dim() == 3 else problem[1]
    w = np.random.default_rng(seed).integers(3, size=(len(targets), 3)).astype(np.float32)
    got = resampled_ap(scores, targets, w)
    for h,c,r in np.ndindex(got.shape):
        if (w[:,r]*targets[:,c].numpy()).any():
            assert abs(average_precision_score(targets[:,c], scores[h,:,c], sample_weight=w[:,r])-got[h,c,r]) < 1e-5
        else: assert np.isnan(got[h,c,r])
    for h,r in np.ndindex(got.shape[0], 3):
        mean = resampled_map(scores, targets, w)[h,r]
        there = got[h,~np.isnan(got[h,:,r]),r]
        assert np.isnan(mean) if not len(there) else abs(mean-there.mean()) < 1e-6
