"""Files that version 0.1.0 wrote (tests/old, made by tests/old/write.py) are read, and give the same numbers."""
import gzip, json, re
from pathlib import Path
import numpy as np, pytest, torch
from safetensors.torch import load_file
from laso.bench.compare import compare_runs
from laso.bench.results import read_run
from laso.core import OPS
from laso.features.table import load_features
from laso.fewshot.views import Views
from laso.ops.kinds import KINDS, SetOps
from laso.tag import start
from laso.tag.tagger import load_tagger

OLD = Path(__file__).parent/'old'
OUTPUTS = load_file(OLD/'operators/outputs.safetensors')
OPERATORS = sorted(p.name for p in (OLD/'operators').iterdir() if p.is_dir())

def read(name): return json.loads((OLD/name).read_text(encoding='utf8'))

def test_every_kind_of_then_is_here():
    then = {read(f'operators/{name}/operators.json')['kind'] for name in OPERATORS}
    assert then == set('analytic blend adaptive logic mixture paper residual'.split()) <= {*KINDS}

@pytest.mark.parametrize('name', OPERATORS)
def test_operators(name):
    table = load_features(OLD/'features')
    ops = SetOps.load(OLD/'operators'/name, table.width, features=table.fingerprint())
    for op in OPS:
        with torch.no_grad(): got = ops(op, OUTPUTS['fx'], OUTPUTS['fy'])
        torch.testing.assert_close(got, OUTPUTS[f'{name}.{op}'], atol=1e-6, rtol=1e-6)

@pytest.mark.parametrize('name', OPERATORS)
def test_operators_written_again(name, tmp_path):
    "What was read from an old file can be written, and is read again."
    SetOps.load(OLD/'operators'/name).save(tmp_path)
    ops = SetOps.load(tmp_path)
    for op in OPS:
        with torch.no_grad(): got = ops(op, OUTPUTS['fx'], OUTPUTS['fy'])
        torch.testing.assert_close(got, OUTPUTS[f'{name}.{op}'], atol=1e-6, rtol=1e-6)

def test_feature_table():
    table,rest = load_features(OLD/'features'),read('features/features.json')
    np.testing.assert_array_equal(table.x, np.load(OLD/'features/features.npy'))
    assert [r.nonzero().flatten().tolist() for r in table.labels] == rest['labels']
    assert (table.vocab, table.fnames, table.meta) == (rest['vocab'], rest['fnames'], rest['meta'])
    assert (table.is_valid.tolist(), table.novel.tolist()) == (rest['is_valid'], rest['novel'])
    assert (len(table), table.width, table.name) == (400, 12, 'toy')

def test_views():
    views,want = Views.load(OLD/'views.safetensors'),load_file(OLD/'views.safetensors')
    for k,v in want.items(): assert torch.equal(getattr(views, k), v), k
    sets = views.support_sets()
    assert [dict(shot=s.shot, episode=s.episode, seed=s.seed, rows=s.rows.tolist()) for s in sets] == read('sets.json')
    views.check(sets)

def test_results_of_a_run():
    run,want = read_run(OLD/'run'),read('compared.json')
    assert run == read('run/results.json')
    other = json.loads(json.dumps(run))
    for part in 'operators', 'fewshot':
        for i,o in enumerate(other[part]): o['map'] += .001*(i % 7)
    got = compare_runs(run, other)
    for title in want:
        tab = got[title].reset_index()
        if 'Few-shot' in title: tab = as_then(tab)
        assert [*tab.columns] == [*want[title]]
        for k,v in want[title].items():
            if all(isinstance(o, (int, float)) for o in v):
                digits = len(str(tab[k].iloc[0]).partition('.')[2])   # as many as are printed
                assert tab[k].astype(float).tolist() == [round(o, digits) for o in v], k
            else: assert tab[k].tolist() == v, k

def as_then(tab):
    "A difference as 0.1.0 wrote it; it had no scores of resampled images."
    def half(text):
        mean,low,high = map(float, re.fullmatch(r'(\S+) \((\S+) to (\S+)\)', text).groups())
        return f'{mean:+.2f} ± {(high-low)/2:.2f}'
    tab = tab.rename(columns={'B − A, sets only': 'B − A'})
    return tab.assign(**{'B − A': tab['B − A'].map(half)})

def test_tagger(tmp_path, monkeypatch):
    (tmp_path/'my.tagger').write_bytes(gzip.decompress((OLD/'my.tagger.gz').read_bytes()))
    tagger,want = load_tagger(tmp_path/'my.tagger'),read('tagger.json')
    images = list(np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    assert tagger.tags == want['tags']
    assert re.findall(r'[\d.]+|used', tagger.report) == re.findall(r'[\d.]+|used', want['report'])
    np.testing.assert_allclose(tagger.predict_proba(images, show=False), want['probabilities'], atol=5e-3)   # 16 bits, maybe
    monkeypatch.setattr(start, 'native_bf16', lambda device: False)
    np.testing.assert_allclose(tagger.predict_proba(images, show=False), want['probabilities'], atol=1e-6)
    tagger.export(tmp_path/'again.tagger')
    again = load_tagger(tmp_path/'again.tagger').predict_proba(images, show=False)
    np.testing.assert_allclose(again, want['probabilities'], atol=1e-6)
