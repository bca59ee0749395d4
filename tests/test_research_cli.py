"The command line for researchers: vectors, methods and seeds of one's own, tables for papers, comparisons, and mistakes told at once."
import csv, json, re, subprocess, sys
import numpy as np
import pytest, torch
from PIL import Image
from scipy import stats
from sklearn.metrics import average_precision_score
from laso import cli, options
from laso.bench.output import write_json

METHOD = '''import torch.nn.functional as F

def nearest_mean(t):
    means = F.normalize(t.y.T @ t.x, dim=-1)
    return F.normalize(t.query, dim=-1) @ means.T
'''
CLASSES = 'dog cat bird car tree boat'.split()
N,N_TRAIN = 240,160

@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('LASO_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield

def refused(said, *parts):
    status,out,err = said
    assert status == 2 and err.startswith('laso: expected ') and err.count('\n') == 1, said
    for o in parts: assert o in err, err

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Vectors that are noisy sums of one random vector a class, with labels under other names than ours."
    path,g = tmp_path_factory.mktemp('world'),np.random.default_rng(0)
    y = g.random((N, 6)) < .4
    x = y @ g.random((6, 12)) + .3*g.random((N, 12))
    np.save(path/'x.npy', x)   # float64, as NumPy has it
    lines = [[f'{i}', ';'.join(np.array(CLASSES)[r]), str(i >= N_TRAIN)] for i,r in enumerate(y)]
    with open(path/'labels.csv', 'w', newline='') as f:
        csv.writer(f).writerows([['sentence', 'topics', 'is_valid'], *lines])
    (path/'mine.py').write_text(METHOD)
    return dict(path=path, x=x, y=y)

def own(world, *more):
    path = world['path']
    return ['fewshot', '--features', path/'x.npy', '--labels', path/'labels.csv', '--file-column', 'sentence',
            '--label-column', 'topics', '--label-delim', ';', '--novel', 'dog, boat', *more]

@pytest.fixture(scope='module')
def scored(world):
    "What the command writes for vectors, with a method of one's own, as LaTeX and as CSV."
    path = world['path']
    args = own(world, '--episodes', 3, '--ops', 'analytic', '--method', f"{path/'mine.py'}:nearest_mean",
               '--method', 'ridge', '--out', path/'out', '--latex', path/'a.tex', '--csv', path/'a.csv')
    with pytest.MonkeyPatch.context() as m:
        m.setattr(sys, 'argv', ['laso', *map(str, args)])
        with pytest.raises(SystemExit) as e: cli.main()
    assert not e.value.code
    return path

def rows_of(file): return json.loads(file.read_text())

def test_vectors_end_to_end(world, scored, laso):
    "The usual files; no methods that need images; a score of the own method as scikit-learn has it."
    assert {p.name for p in (scored/'out').iterdir()} >= {'features', 'fewshot.json', 'fewshot.png', 'fewshot.safetensors',
                                                          'operators.json', 'operators.safetensors', 'laso-files.json'}
    rows = rows_of(scored/'out/fewshot.json')
    methods = list(dict.fromkeys(r['method'] for r in rows))
    assert methods == ['none', *(f'{k}-{op}' for k in ('analytic', 'laso') for op in ('intersection', 'union', 'subtraction')),
                       'ridge', 'nearest_mean']
    about = rows_of(scored/'out/features/features.json')
    assert [v for v,n in zip(about['vocab'], about['novel']) if n] == ['boat', 'dog'] and about['fnames'][:3] == ['0', '1', '2']
    x,y = world['x'].astype(np.float32),world['y'][:,[CLASSES.index('boat'), CLASSES.index('dog')]].astype(float)
    from laso.features.table import load_features
    from laso.fewshot.support import support_sets
    table = load_features(scored/'out/features')
    assert torch.equal(table.x, torch.from_numpy(x))
    for s in support_sets(table, n_eps=3):
        s_rows = s.rows.numpy()
        assert s_rows.max() < N_TRAIN
        unit = x/np.linalg.norm(x, axis=1, keepdims=True)
        means = y[s_rows].T @ x[s_rows]
        scores = unit[N_TRAIN:] @ (means/np.linalg.norm(means, axis=1, keepdims=True)).T
        want = average_precision_score(y[N_TRAIN:], scores)
        got = next(r['map'] for r in rows if (r['shot'], r['episode'], r['method']) == (s.shot, s.episode, 'nearest_mean'))
        assert got == pytest.approx(want, abs=1e-5)

def test_what_is_left_out_is_said(world, laso, tmp_path):
    status,out,err = laso(*own(world, '--episodes', 1, '--ops', 'none', '--out', tmp_path/'out'))
    assert status == 0 and 'jitter and mixup are left out' in err and 'without operators' in err
    assert {r['method'].split('-')[0] for r in rows_of(tmp_path/'out/fewshot.json')} == {'none', 'analytic'}
    assert not (tmp_path/'out/operators.json').exists()

def test_other_stages_go_on(scored, laso, tmp_path):
    "The folder is a run: its features can be evaluated and trained on, and few-shot methods run again, on the same sets."
    status,out,err = laso('fewshot', scored/'out', '--episodes', 3, '--out', tmp_path/'again')
    assert status == 0, err
    def maps(file): return {(r['shot'], r['episode'], r['method']): r['map'] for r in rows_of(file)}
    first,again = maps(scored/'out/fewshot.json'),maps(tmp_path/'again/fewshot.json')
    assert again == {k: first[k] for k in again} and len(again) == 2*3*7
    assert laso('evaluate', scored/'out', '--n-pairs', 50, '--out', tmp_path/'again')[0] == 0
    status,out,err = laso('compare', scored/'out', tmp_path/'again')
    assert status == 0 and '+0.00 (+0.00 to +0.00)' in out
    assert 'left out' in err and 'ridge with 1 shot' in err and 'which only A has' in err and 'operators of union' in err

def test_tables_for_papers(scored):
    "The mean in the files is that of the rows, and LaTeX has as many cells a row as columns."
    rows,text = rows_of(scored/'out/fewshot.json'),(scored/'a.tex').read_text()
    def mean(m, k): return np.mean([r['map'] for r in rows if r['method'] == m and r['shot'] == k])
    with open(scored/'a.csv', newline='') as f: table = list(csv.DictReader(f))
    for r in table:
        m,k = r['method'],int(float(r['shot']))
        assert float(r['value']) == pytest.approx(mean(m, k), abs=1e-6) and r['table'] == 'fewshot'
        assert float(r['diff']) == pytest.approx(mean(m, k)-mean('none', k), abs=1e-6)
    columns = len(re.search(r'\\begin\{tabular\}\{(\w+)\}', text)[1])
    lines = [l for l in text.splitlines() if l.endswith(r'\\')]
    assert len(lines) == 1+9 and {len(re.findall(r'(?<!\\)&', l))+1 for l in lines} == {columns} == {5}
    assert [text.count(o) for o in (r'\toprule', r'\midrule', r'\bottomrule')] == [1, 1, 1]
    line = next(l for l in lines if l.startswith(r'nearest\_mean'))
    assert line.split(' & ')[1].startswith(f"{100*mean('nearest_mean', 1):.1f} (") and text.isascii()

# Methods of one's own

@pytest.mark.parametrize('source,name,parts', [
    (METHOD, 'nearest', ['did you mean nearest_mean?']),
    ('def f(t:\n', 'f', ['SyntaxError', 'in line 1']),
    ('\nimport nothing_here\nf = 1', 'f', ['nothing_here', 'in line 2']),
    ('def f(t):\n    a = t.x\n    return a.nothing', 'f', ["no attribute 'nothing' in line 3"]),
    ('def f(t): return t.query', 'f', ['scores of shape (80, 2)', 'line 1, found (80, 12)']),
    ('def f(t): return t.query[:,:2]*float("nan")', 'f', ['found NaN']),
    ('none = lambda t: t.query[:,:2]', 'none', ['found none; rename'])],
    ids='name syntax import attribute shape nan taken'.split())
def test_mistakes_in_a_method(world, laso, tmp_path, source, name, parts):
    file = tmp_path/'mine.py'
    file.write_text(source)
    said = laso(*own(world, '--episodes', 1, '--ops', 'none', '--method', f'{file}:{name}', '--out', tmp_path/'out'))
    assert said[0] == 2 and not said[1].startswith('Few'), said
    line = said[2].splitlines()[-1]
    assert line.startswith('laso: expected ') and all(p in line for p in parts), said[2]
    assert 'Traceback' not in said[2] and not (tmp_path/'out').exists() and not (tmp_path/'__pycache__').exists()

def test_a_method_of_a_class(world, laso, tmp_path):
    "A `Method` keeps what it says of itself; one that needs views can't be had here."
    file = tmp_path/'mine.py'
    file.write_text('from laso.fewshot.methods import Method\ndef f(t): return t.query[:,:2]\n'
                    'viewed = Method(f, views=True)\nplain = Method(f)\n')
    args = own(world, '--episodes', 1, '--ops', 'none', '--out', tmp_path/'out')
    assert laso(*args, '--method', f'{file}:plain')[0] == 0
    status,_,err = laso(*args, '--method', f'{file}:viewed')
    assert status == 2 and 'views of the support sets for the method viewed' in err

# Several seeds

def test_seeds(laso, tmp_path, monkeypatch):
    "Means and intervals over seeds by hand; what is finished is not run again."
    from laso.bench import run
    folder = images(tmp_path/'data')
    where = ['bench', '--data', folder, '--frozen', '--backbone', 'test_efficientnet', '--weights', 'random', '--size', 32,
             '--episodes', 1, '--n-pairs', 20, '--ops', 'analytic', '--out', tmp_path/'out']
    assert laso(*where, '--seeds', 2)[0] == 0
    whole,ran = run.bench,[]
    def counted(cfg, **kwargs): ran.append(cfg.seed); return whole(cfg, **kwargs)
    monkeypatch.setattr('laso.bench.seeds.bench', counted)
    status,out,err = laso(*where, '--seeds', 3, '--csv', tmp_path/'a.csv')
    assert status == 0 and ran == [2] and 'seed 1, 2 of 3, is finished' in err
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == ['laso-files.json', 'seed-0', 'seed-1', 'seed-2', 'seeds.csv']
    runs = [rows_of(tmp_path/f'out/seed-{s}/results.json') for s in range(3)]
    assert [r['seed'] for r in runs] == [0, 1, 2]
    def interval(v): return np.mean(v), stats.t.ppf(.975, 2)*np.std(v, ddof=1)/3**.5
    def few(r, m, k): return np.mean([o['map'] for o in r['fewshot'] if (o['method'], o['shot']) == (m, k)])
    with open(tmp_path/'a.csv', newline='') as f: table = list(csv.DictReader(f))
    assert {r['seeds'] for r in table} == {'3'}
    for r in table:
        if r['table'] == 'operators':
            v = [next(o['map'] for o in res['operators'] if all(o[k] == r[k] for k in ('classes', 'op', 'operator'))) for res in runs]
        elif r['table'] == 'fewshot': v = [few(res, r['method'], float(r['shot'])) for res in runs]
        else: continue
        mean,half = interval(v)
        assert [float(r[k]) for k in ('value', 'low', 'high')] == pytest.approx([mean, mean-half, mean+half], abs=1e-6)
        if r['table'] == 'fewshot':
            mean,half = interval([few(res, r['method'], float(r['shot']))-few(res, 'none', float(r['shot'])) for res in runs])
            assert [float(r[k]) for k in ('diff', 'diff_low', 'diff_high')] == pytest.approx([mean, mean-half, mean+half], abs=1e-6)

def images(path):
    "Noise with labels, under columns of other names."
    g = np.random.default_rng(0)
    (path/'images').mkdir(parents=True)
    lines = [['image', 'tags', 'is_valid']]
    for i in range(70):
        Image.fromarray(g.integers(0, 256, (8, 8, 3), np.uint8)).save(path/'images'/f'{i}.png')
        lines.append([f'{i}.png', ' '.join(o for o in CLASSES if g.random() < .5), i >= 45])
    (path/'novel.txt').write_text('dog\nboat\n')
    with open(path/'labels.csv', 'w', newline='') as f: csv.writer(f).writerows([['fname', 'labels', 'is_valid'], *lines[1:]])
    return path

# Comparisons

def test_compare_of_stages(laso, tmp_path):
    "By hand: 50.0 and 52.5 for the operators, differences .01, .02 and .03 of three support sets."
    rows = [dict(shot=1, episode=e, method='none', map=.3) for e in range(3)]
    a,b = tmp_path/'a',tmp_path/'b'
    for o in (a, b): o.mkdir()
    op = dict(operator='learned', op='union', classes='seen')
    write_json(dict(untouched=dict(seen=.6), operators=[dict(op, map=.5)], expressions=[]), a/'evaluate.json')
    write_json(dict(untouched=dict(seen=.6), operators=[dict(op, map=.525), dict(op, op='subtraction', map=.4)], expressions=[]), b/'evaluate.json')
    write_json(rows, a/'fewshot.json')
    write_json([dict(r, map=.31+.01*r['episode']) for r in rows]+[dict(rows[0], method='mine')], b/'fewshot.json')
    status,out,err = laso('compare', a, b, '--csv', tmp_path/'c.csv')
    assert status == 0 and re.search(r'seen +│ union +│ learned +│ 50\.0 │ 52\.5 │ \+2\.5 ', out), out
    half = stats.t.ppf(.975, 2)*1/3**.5   # in percent
    assert f'30.00 │ 32.00 │ +2.00 ({2-half:+.2f} to {2+half:+.2f})' in out, out
    assert 'operators of subtraction, mine with 1 shot (2 in all), which only B has' in err
    assert not re.search(r'\d\.\d{3}', out)
    with open(tmp_path/'c.csv', newline='') as f: table = list(csv.DictReader(f))
    assert [r['table'] for r in table] == ['untouched', 'operators', 'fewshot']
    assert float(table[1]['diff']) == pytest.approx(.025)

def test_nothing_to_compare(laso, tmp_path):
    refused(laso('compare', tmp_path, tmp_path), 'evaluate.json, retrieve.json or fewshot.json', str(tmp_path))
    for name in 'retrieve', 'fewshot':
        (tmp_path/name).mkdir()
        (tmp_path/name/f'{name}.json').write_text('{"retrieval": []}' if name == 'retrieve' else '[]')
    refused(laso('compare', tmp_path/'retrieve', tmp_path/'retrieve'), 'scores that both runs have')
    (tmp_path/'fewshot/fewshot.json').write_text('3')
    refused(laso('compare', tmp_path/'fewshot', tmp_path/'retrieve'), 'run laso fewshot again')

# Columns

def test_columns_of_images(laso, tmp_path):
    "A table with other names gives what ours does."
    folder = images(tmp_path/'data')
    text = (folder/'labels.csv').read_text()
    def extract(out, *more):
        return laso('extract', '--data', folder, '--frozen', '--backbone', 'test_efficientnet', '--weights', 'random',
                    '--size', 32, '--episodes', 1, '--out', tmp_path/out, *more)
    assert extract('a')[0] == 0
    rows = [l.split(',') for l in text.splitlines()[1:]]
    (folder/'labels.csv').write_text('\n'.join(['is_valid,tags,image', *(f'{v},{l.replace(" ", "|")},{f}' for f,l,v in rows)]))
    refused(extract('b'), 'found is_valid,tags,image', '--file-column and --label-column')
    columns = '--file-column', 'image', '--label-column', 'tags'
    refused(extract('b', *columns), '--label-delim')
    refused(extract('b', '--label-column', 'tag', *columns[:2]), 'image,tag', 'found is_valid,tags,image')
    assert extract('b', *columns, '--label-delim', '|')[0] == 0
    a,b = (rows_of(tmp_path/o/'features/features.json') for o in 'ab')
    assert {k: a[k] for k in ('fnames', 'labels', 'vocab', 'novel', 'is_valid')} == {k: b[k] for k in ('fnames', 'labels', 'vocab', 'novel', 'is_valid')}

# At once

def test_names_of_options_are_those_of_the_registries():
    from laso.bench.settings import PRESETS
    from laso.fewshot.methods import HEADS, METHODS
    from laso.fewshot.representation import REPRESENTATIONS
    from laso.ops.kinds import KINDS
    from laso.train.callbacks import LOGGERS
    tables = dict(ops=KINDS, preset=PRESETS, head=HEADS, representation=REPRESENTATIONS, log=LOGGERS, method=METHODS)
    assert options.CHOICES == {k: [*v] for k,v in tables.items()}

MISTAKES = [
    'bench --data nowhere', 'bench --data coco:nowhere', 'bench --ops best', 'bench --head best', 'bench --preset best',
    'bench --method best', 'bench --method nowhere.py:f', 'bench --method mine.py:nothing', 'bench --log best', 'bench --size 5', 'bench --episodes 0',
    'bench --weights nowhere', 'bench --data . ', 'bench --data . --file-column sentence', 'bench --label-delim ;',
    'bench --data fastai:MNIST', 'bench --out mine.py', 'extract --out mine.py/x', 'train out --out mine.py', 'study out --out mine.py',
    'bench --latex nowhere/a.tex', 'bench --csv .', 'extract --data nowhere', 'extract --representation best',
    'extract --data . --file-column image --label-column tags', 'train nowhere', 'train . --ops best', 'evaluate nowhere', 'retrieve .',
    'fewshot', 'fewshot nowhere', 'fewshot out --features x.npy', 'fewshot --features x.npy', 'fewshot --features nowhere --labels labels.csv',
    'fewshot --features x.npy --labels labels.csv', 'fewshot --features x.npy --labels nowhere.csv',
    'fewshot --features x.npy --labels labels.csv --file-column sentence --label-column topics --label-delim ; --novel dgo',
    'study nowhere', 'study out --like nowhere', 'study out --split nowhere', 'study out --like a --split b', 'compare nowhere out', 'compare out nowhere',
    'teach nowhere', 'teach nowhere.json', 'teach . --file-column sentence', 'teach . --out mine.py/my.tagger', 'teach . --add nowhere', 'teach . --root nowhere',
    'teach . --pool nowhere', 'teach . --run nowhere', 'teach . --add mine.py --size 64', 'tag nowhere .', 'tag mine.py nowhere', 'tag mine.py . --csv mine.py/a.csv',
    'tag mine.py . --precise --complete', 'tag mine.py . --copy', 'tag mine.py . --sort-into mine.py', 'review nowhere .', 'review mine.py nowhere',
    'review mine.py . --out mine.py/a.html']
LOADED = '''import sys
from laso.cli import app
from laso.core import InputError
for line in sys.stdin.read().splitlines():
    try: app(line.split(), standalone_mode=False)
    except InputError as e: print(e)
    else: print('not refused:', line)
    big = [m for m in ('torch', 'pandas', 'timm', 'fastai', 'sklearn', 'matplotlib') if m in sys.modules]
    if big: sys.exit(f'{line} loads {big}')
'''

def test_mistakes_are_told_before_anything_is_loaded(scored):
    "Counted in modules, not in seconds."
    p = subprocess.run([sys.executable, '-c', LOADED], input='\n'.join(MISTAKES), text=True, capture_output=True, cwd=scored)
    assert p.returncode == 0, p.stderr
    said = p.stdout.splitlines()
    assert len(said) == len(MISTAKES)
    for line,text in zip(MISTAKES, said):
        assert re.match(r'expected .*, found .*; ', text), (line, text)
