"Intervals of few-shot differences hold what is true, where that is known; and they say what they are over."
import numpy as np, pytest, torch
from laso.bench.compare import compare_runs
from laso.bench.results import fewshot_summary
from laso.evaluate.coverage import World, coverage, experiment
from laso.evaluate.statistics import fewshot_table, over_classes, over_sets, two_way
from laso.features.table import FeatureTable
from laso.fewshot.methods import METHODS, fewshot, resamples
from laso.fewshot.support import support_sets

def held(*args, **kwargs):
    return {r['interval']: r['coverage'] for r in coverage(*args, **kwargs)}

def test_coverage():
    "Over sets and images they hold, over sets only they do not."
    small = World(n=200, n_way=8, d=32)
    found = held(small, 40, n_rep=80, n_boot=60, n_truth=400)
    assert found['two_way'] >= .88 and found['sets only'] < .85, found

def test_interval_is_as_wide_as_the_spread():
    "The variance that it claims is that of repeated experiments: neither part is left out or counted twice."
    rng,small = np.random.default_rng(1),World(n=150, n_way=4, few=15, many=40, d=16, shared=.2)
    runs = [experiment(small, 10, rng, n_boot=60) for _ in range(150)]
    half = np.array([(e.high-e.low)/2 for e in (two_way(*o) for o in runs)])
    claimed,true = np.sqrt((half**2).mean())/2.1, np.std([d.mean() for d,_ in runs], ddof=1)
    assert .85 < claimed/true < 1.3, claimed/true

def rare_table(n=300, n_way=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random((n, n_way+2)) < .06
    y[:n_way*12, :n_way] |= np.eye(n_way, dtype=bool).repeat(12, 0)
    x = np.abs(y@rng.random((n_way+2, 16))+.5*rng.random((n, 16))).astype(np.float32)
    return FeatureTable(x, torch.from_numpy(y).float(), [f'c{i}' for i in range(n_way+2)],
                        torch.arange(n) % 2 == 0, torch.arange(n_way+2) < n_way)

@pytest.fixture(scope='module')
def rows():
    table = rare_table()
    methods = dict(none=METHODS['none'], other=METHODS['analytic-union'], called=METHODS['ml-protonet'])
    return fewshot(table, sets=support_sets(table, n_shots=(1,), n_eps=6), methods=methods)

def test_all_methods_meet_the_same_resamples(rows):
    "Called one by one or solved together: a difference of a method to itself is 0 in every resample."
    boots = {m: np.stack([r['boot'] for r in rows if r['method'] == m]) for m in ('none', 'called')}
    assert boots['none'].shape == boots['called'].shape == (6, 500)
    means = [np.corrcoef(boots['none'].mean(0), b.mean(0))[0,1] for b in boots.values()]
    assert means[1] > .5   # the same images are hard for both

def test_balanced_rows_are_drawn_as_images():
    "An image that stands in several rows is drawn with all of them, or not at all."
    table = rare_table()
    draws = table.valid_ids[torch.tensor([0, 5, 5, 5, 9])]
    counts = resamples(table, draws, 50)
    assert (counts[1] == counts[2]).all() and (counts[1] == counts[3]).all()
    assert set(counts[[0, 1, 4]].sum(0)) == {3}

def test_tables_say_what_they_are_over(rows):
    plain = [{k: v for k,v in r.items() if k not in ('boot', 'ap')} for r in rows]
    wide,narrow = (fewshot_table(o).set_index('method') for o in (rows, plain))
    assert set(wide.over) == {'sets and images'} and set(narrow.over) == {'sets only'}
    np.testing.assert_allclose(wide['diff'], narrow['diff'])
    assert all('sets only' in c for c in fewshot_summary(plain).columns)
    assert not any('sets only' in c for c in fewshot_summary(rows).columns)
    mixed = [r if r['method'] == 'none' else p for r,p in zip(rows, plain)]
    assert fewshot_table(mixed).set_index('method').over['other'] == 'sets only'

def test_classes(rows):
    tab = over_classes(rows).set_index('method')
    aps = {m: np.mean([r['ap'] for r in rows if r['method'] == m], 0, dtype=float) for m in ('none', 'other')}
    e = over_sets(aps['other']-aps['none'])
    assert (tab.n_classes == 4).all()
    assert tab['diff']['other'] == pytest.approx(e.mean) and tab.diff_low['other'] == pytest.approx(e.low)

def test_runs_on_other_images_are_compared_over_sets_only(rows):
    about = dict(images='a', sets={f'1/{e}': 'same' for e in range(6)})
    run = dict(data=dict(name='x'), fewshot=rows, resampled=about,
               operators=[dict(operator='learned', op='union', classes='seen', map=.5)])
    def column(other): return compare_runs(run, other)['Few-shot: mAP on the novel classes'].columns[2]
    assert column(run) == 'B − A'
    for change in (dict(about, images='b'), dict(about, sets={'1/0': 'other'}), None):
        assert column(dict(run, resampled=change)) == 'B − A, sets only'
