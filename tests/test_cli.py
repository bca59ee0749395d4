"The command line: what it writes, that it repeats, and what it says when something is wrong."
import csv, itertools, json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
import matplotlib, pytest, timm, torch
from PIL import Image
from safetensors.torch import load_file, save_file
from laso import cli
from laso.core import OPS
from laso.ops.kinds import set_ops
from laso.data.scenes import CATEGORIES, NOVEL, make_scenes
from laso.train import recipes

COMMANDS = 'bench extract train evaluate retrieve fewshot'.split()
METHODS = ('none jitter mixup analytic-intersection analytic-union analytic-subtraction '
           'laso-intersection laso-union laso-subtraction').split()
BACKBONE = '--backbone test_efficientnet --size 64'.split()
SHORT = '--ops-epochs 1 --n-pairs 50'.split()
FILES = ('backbone.safetensors curves.png fewshot.png gallery.png history.csv laso-files.json operators.json operators.png '
         'operators.safetensors per_class.csv precision_recall.png report.html results.json results.safetensors').split()
FEWEST = 1024   # pairs of an epoch of the operators; usually 8192
RUN = ('import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from laso.train import recipes; '
       f'recipes.FEWEST = {FEWEST}; from laso.cli import main; main()')

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "A folder with scenes, weights and a cache, and nothing else that may be written to."
    path = tmp_path_factory.mktemp('world')
    make_scenes(path/'data', n_train=240, n_valid=120, size=64)
    torch.manual_seed(0)
    save_file(timm.create_model('test_efficientnet', num_classes=0).state_dict(), path/'weights.safetensors')
    for o in 'home', 'tmp', 'here': (path/o).mkdir()
    with pytest.MonkeyPatch.context() as m:
        m.setenv('LASO_CACHE', str(path/'cache'))
        m.setattr(recipes, 'FEWEST', FEWEST)
        yield path

def options(world, data=None, n_eps=3):
    return ['--data', data or world/'data', '--weights', world/'weights.safetensors', *BACKBONE, '--episodes', n_eps]

def start(world, *args, cache=None):
    "The command in a process of its own."
    env = {k:v for k,v in os.environ.items() if not k.startswith('XDG_')}
    env |= dict(HOME=str(world/'home'), TMPDIR=str(world/'tmp'), LASO_CACHE=str(cache or world/'cache'),
                MPLCONFIGDIR=matplotlib.get_cachedir(), PYTHONDONTWRITEBYTECODE='1', LASO_PROGRESS='1')
    return subprocess.Popen([sys.executable, '-c', RUN, *map(str, args)], env=env, cwd=world/'here', text=True,
                            encoding='utf8', stdout=subprocess.PIPE, stderr=subprocess.PIPE)

@pytest.fixture
def laso(world, laso): return laso

def read_json(file):
    def refuse(o): raise ValueError(f'{o} in {file}')
    return json.loads(file.read_text(encoding='utf8'), parse_constant=refuse)

def names(folder): return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())

def state(world):
    "Every file and folder outside results and cache, with its time of change."
    mine = {world/'results', world/'cache'}
    # Python and torch try out the folder for temporary files, which changes its time, not what is in it
    return {p: p != world/'tmp' and p.stat().st_mtime_ns for p in world.rglob('*') if not mine & {p, *p.parents}}

@pytest.fixture(scope='module')
def ran(world):
    "`laso bench` in a process of its own: the folder it wrote, what it said, and what else it changed."
    before = state(world)
    p = start(world, 'bench', *options(world), '--frozen', *SHORT, '--out', Path('..')/'results'/'bench')
    out,err = p.communicate(timeout=300)
    after = state(world)
    assert p.returncode == 0, err
    return world/'results'/'bench',out,err,[k for k in before.keys() | after.keys() if before.get(k) != after.get(k)]

def test_help(laso):
    status,text,_ = laso('--help')
    assert status == 0 and all(re.search(rf'^  {o} ', text, re.M) for o in (*COMMANDS, 'teach', 'tag', 'compare'))
    for o in COMMANDS:
        status,text,err = laso(o, '--help')
        assert status == 0 and not err and '--out' in text and f'laso {o}' in text

def test_bench_writes(ran):
    out,said,err,changed = ran
    assert names(out) == sorted(FILES) and not changed
    for o in FILES:
        if o.endswith('.png'):
            with Image.open(out/o) as im: im.load(); assert min(im.size) > 100
    assert all(v.isfinite().all() for v in load_file(out/'operators.safetensors').values())
    assert 'Operators: mAP' in said and 'laso-union' in said and '../results/bench' in said.replace('\n', '')
    assert 'Traceback' not in err and 'Warning' not in err, err
    stages = [o for o in err.splitlines() if o.endswith('…')]
    assert [o.split()[0] for o in stages] == 'Features Choice Operators Evaluation Figures Views Few-shot'.split()

def fraction(v): return v is None or 0 <= v <= 1

def test_results(ran):
    res = read_json(ran[0]/'results.json')
    assert (res['schema'], res['seed']) == (1, 0)
    assert res['laso_version'] and res['command'].startswith('laso bench --data ')
    base = [o for o in CATEGORIES if o not in NOVEL]
    assert {k: v if isinstance(v, (str, int)) else set(v) for k,v in res['data'].items()} == dict(
        name='data', n_train=240, n_valid=120, base=set(base), novel=set(NOVEL))
    assert res['backbone'] == dict(name='test_efficientnet', width=256, finetuned=False, size=64,
                                  taus=[], crops=0, bf16=False)
    assert list(res['untouched']) == ['seen', 'unseen'] and all(map(fraction, res['untouched'].values()))
    assert {'features', 'operators', 'evaluation', 'fewshot', 'total'} <= res['timings'].keys()
    assert 0 < max(res['timings'].values()) == res['timings']['total'] and res['peak_memory_mb'] > 100

def keys(rows, *cols): return sorted(tuple(r[c] for c in cols) for r in rows)

def test_rows(ran):
    res = read_json(ran[0]/'results.json')
    want = sorted(itertools.product(('analytic', 'learned'), OPS, ('seen', 'unseen')))
    for part in 'operators', 'retrieval': assert keys(res[part], 'operator', 'op', 'classes') == want
    n_lbl = dict(seen=len(CATEGORIES)-len(NOVEL), unseen=len(NOVEL))
    for r in res['operators']:
        assert r.keys() >= {'operator', 'op', 'classes', 'map', 'n_pairs', 'n_classes'} and fraction(r['map'])
        assert r['n_pairs'] == 50 and 0 < r['n_classes'] <= n_lbl[r['classes']]
    for r in res['retrieval']:
        assert r.keys() >= {'operator', 'op', 'classes', 'iou@1', 'iou@3', 'iou@5', 'n_queries'}
        assert 0 <= r['n_queries'] <= 50
        iou = [r[f'iou@{k}'] for k in (1, 3, 5)]
        assert iou == [None]*3 if r['n_queries'] == 0 else 0 <= iou[0] <= iou[1] <= iou[2] <= 1
    assert keys(res['fewshot'], 'shot', 'episode', 'method') == sorted(itertools.product((1, 5), range(3), METHODS))
    assert list(dict.fromkeys(r['method'] for r in res['fewshot'])) == METHODS
    assert all(r.keys() >= {'shot', 'episode', 'method', 'map'} and fraction(r['map']) for r in res['fewshot'])

def test_seed(laso, world, ran, tmp_path):
    "Another seed gives other numbers; that the same gives the same stands in `test_determinism.py`."
    assert laso('bench', *options(world), '--frozen', *SHORT, '--seed', 1, '--out', tmp_path/'other')[0] == 0
    first,other = (read_json(o/'results.json') for o in (ran[0], tmp_path/'other'))
    assert all(other[k] != first[k] for k in ('seed', 'operators', 'retrieval', 'fewshot', 'curves'))
    assert other['data'] == first['data'] and other['untouched'] == first['untouched']

def test_stages(laso, world, ran, tmp_path):
    "Each stage works on what the one before it wrote, and all together are `laso bench`."
    run,bench = tmp_path/'run',read_json(ran[0]/'results.json')
    views = ['features/features.json', 'features/features.npy', 'laso-files.json', 'views.safetensors']
    learned = ['curves.json', 'curves.png', 'history.csv', 'operators.json', 'operators.safetensors']
    scores = ['evaluate.json', 'fewshot.json', 'fewshot.png', 'fewshot.safetensors', 'retrieve.json']
    for args,wrote in [
        (('extract', *options(world), '--frozen', '--out', run), views),
        (('train', run, '--ops-epochs', 1), learned),
        (('evaluate', run, '--n-pairs', 50), scores[:1]),
        (('retrieve', run, '--n-pairs', 50), scores[-1:]),
        (('fewshot', run), scores[1:4]),
    ]:
        before = set(names(run)) if run.exists() else set()
        status,out,err = laso(*args)
        assert status == 0 and not err and str(run) in out.replace('\n', ''), err
        assert set(names(run)) - before == set(wrote)
    part = {o: read_json(run/f'{o}.json') for o in ('evaluate', 'retrieve', 'fewshot', 'curves')}
    assert part['evaluate'] == {k: bench[k] for k in ('untouched', 'operators', 'expressions')}
    assert part['retrieve'] == {k: bench[k] for k in ('retrieval', 'expressions')}
    assert part['fewshot'] == bench['fewshot'] and part['curves'] == bench['curves']
    assert (run/'operators.safetensors').read_bytes() == (ran[0]/'operators.safetensors').read_bytes()

def test_stage_into_another_folder(laso, world, ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert laso('extract', *options(world), '--frozen')[0] == 0
    [run] = (tmp_path/'runs').iterdir()
    assert re.fullmatch(r'data-\d{8}-\d{6}', run.name)
    before = state(run)
    assert laso('train', run, '--ops', 'analytic', '--out', 'ops')[0] == 0
    assert names(tmp_path/'ops')[-2:] == ['operators.json', 'operators.safetensors'] and state(run) == before

def test_cached(laso, world, ran, tmp_path):
    "A second run reads the features of the first, and fine-tuning is done once."
    def files(): return {p: p.stat().st_mtime_ns for p in (world/'cache').iterdir()}
    args = 'extract',*options(world),'--epochs',1,'--out',tmp_path/'run'
    assert laso(*args)[0] == 0
    first,table = files(),(tmp_path/'run'/'features'/'features.npy').read_bytes()
    assert laso(*args)[0] == 0 and files() == first
    assert (tmp_path/'run'/'features'/'features.npy').read_bytes() == table
    assert any(p.name.startswith('finetuned-') for p in first)

HOW_FAR = r'laso: .*( of [\d,]+|for [\d.]+ (s|min|h)|left|takes longer)'
def is_progress(line): return not line.strip() or line.endswith('…') or re.fullmatch(rf'  [\d.]+ s|{HOW_FAR}', line)

def one_sentence(err, *parts):
    "The last line is the error, and what is above it, if anything, tells what was being done."
    *above,last = err.strip().splitlines() or ['']
    assert last.startswith('laso: ') and 'Traceback' not in err and all(map(is_progress, above)), err
    for o in parts: assert o in last, err

def rows_of(folder):
    with (folder/'labels.csv').open(newline='') as f: return list(csv.DictReader(f))

def rewrite(folder, change):
    "Change the list of labels of every row, `change(labels, is_valid)`."
    rows = [r | dict(labels=' '.join(change(r['labels'].split(), r['is_valid'] == 'True'))) for r in rows_of(folder)]
    with (folder/'labels.csv').open('w', newline='') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader(); w.writerows(rows)

def keep(name, n):
    "Take the class away from all but the first `n` training pictures."
    left = itertools.count()
    def change(labels, valid): return [o for o in labels if o != name or valid or next(left) < n]
    return lambda folder: rewrite(folder, change)

def no_columns(folder):
    text = (folder/'labels.csv').read_text()
    (folder/'labels.csv').write_text(text.replace('fname,labels', 'file,tags', 1))

def absent(*fnames):
    def change(folder): [(folder/'images'/o).unlink() for o in fnames]
    return change

def undecodable(folder):
    (folder/'images'/'00003.jpg').write_bytes(b'no picture')
    file = folder/'images'/'00250.jpg'
    file.write_bytes(file.read_bytes()[:700])

def unknown_novel(folder): (folder/'novel.txt').write_text('unicorn\ndragon\n' + (folder/'novel.txt').read_text())

def unlisted(folder): (folder/'classes.txt').write_text('\n'.join(o for o in CATEGORIES if o != 'dog'))

FOLDERS = dict(
    no_folder=(shutil.rmtree, ['found no folder', 'check the path']),
    no_labels=(lambda folder: (folder/'labels.csv').unlink(), ['labels.csv', 'found none']),
    no_columns=(no_columns, ['fname,labels', 'found file,tags,is_valid']),
    absent=(absent('00007.jpg'), ['1 of 360 absent: 00007.jpg;']),
    absent_many=(absent('00007.jpg', '00300.jpg', '00011.jpg'),
                 ['3 of 360 absent', '00007.jpg, 00011.jpg, 00300.jpg (3 in all)']),
    undecodable=(undecodable, ['2 of 360', '00003.jpg, 00250.jpg (2 in all)']),
    unknown_novel=(unknown_novel, ['novel.txt', 'unicorn, dragon (2 in all)']),
    unlisted=(unlisted, ['classes.txt', 'found dog']),
    too_few=(keep(NOVEL[0], 4), ['at least 5 training images', f'{NOVEL[0]} 4']),
    no_base=(keep('dog', 0), ['every base class', 'none for dog']),
)

@pytest.mark.parametrize('change,parts', FOLDERS.values(), ids=FOLDERS)
def test_bad_folder(laso, world, tmp_path, change, parts):
    shutil.copytree(world/'data', tmp_path/'bad')
    change(tmp_path/'bad')
    before = names(world/'cache') if (world/'cache').exists() else []
    for command in 'bench', 'extract':
        status,out,err = laso(command, *options(world, data=tmp_path/'bad'), '--frozen', '--out', tmp_path/'out')
        assert status == 2 and not out, err
        one_sentence(err, *parts)
        assert not (tmp_path/'out').exists()
    assert (names(world/'cache') if (world/'cache').exists() else []) == before

@pytest.mark.parametrize('args,parts', [
    ('--backbone test_efficientnett', ["'test_efficientnett'", 'did you mean test_efficientnet']),
    ('--weights nowhere.safetensors', ['found no file nowhere.safetensors']),
    (f'--weights {__file__}', ['expected weights as safetensors']),
    ('--backbone test_vit', ['expected weights for every tensor']),
    ('--size -5', ['size', '-5']),
    ('--episodes 0', ['episodes', 'found 0']),
    ('--epochs -1', ['epochs', 'found -1']),
    ('--data coco:nowhere', ['coco']),
], ids='backbone no_weights weights other_weights size episodes epochs data'.split())
def test_bad_option(laso, world, tmp_path, args, parts):
    for command in 'bench', 'extract':
        status,out,err = laso(command, *options(world), '--frozen', *args.split(), '--out', tmp_path/'out')
        assert status == 2 and not out, err
        one_sentence(err, *parts)
        assert not (tmp_path/'out').exists()

@pytest.mark.parametrize('args,parts', [
    ('bench --n-pairs 0', ['n_pairs', 'found 0']),
    ('bench --ops-epochs 0', ['ops_epochs', 'found 0']),
    ('bench --preset best', ['default, paper-inception, paper-resnet50', "'best'"]),
    ('bench --head best', ['linear, mlp', "'best'"]),
    ('fewshot --head best', ['linear, mlp', "'best'"]),
    ('bench --ops best', ['analytic, blend, adaptive, logic, mixture, paper, residual', "'best'"]),
    ('train --ops best', ['analytic, blend, adaptive, logic, mixture, paper, residual', "'best'"]),
    ('train --ops-epochs 0', ['ops_epochs', 'found 0']),
    ('evaluate --n-pairs 0', ['n_pairs', 'found 0']),
    ('retrieve --n-pairs -3', ['n_pairs', 'found -3']),
    ('study --like nothing.json', ['settings of a study', 'nothing.json']),
    ('study --like nothing.json --split there', ['--like or --split', 'both']),
])
def test_bad_number(laso, world, trained, tmp_path, args, parts):
    where = ['--data', world/'data'] if args.startswith('bench') else [trained]
    status,out,err = laso(*args.split(), *where, '--out', tmp_path/'out')
    assert status == 2 and not out, err
    one_sentence(err, *parts)
    assert not (tmp_path/'out').exists()

@pytest.fixture
def trained(laso, world, tmp_path):
    "What `laso extract` and `laso train` write."
    run = tmp_path/'trained'
    assert laso('extract', *options(world), '--frozen', '--out', run)[0] == 0
    assert laso('train', run, '--ops', 'analytic')[0] == 0
    return run

def test_study_on_a_split(laso, world, trained, tmp_path):
    "Settings chosen on pictures that were split before they became features."
    split = tmp_path/'split'
    assert laso('extract', *options(world), '--frozen', '--pseudo', 0, '--out', split)[0] == 0
    mine,all_ = (read_json(o/'features/features.json') for o in (split, trained))
    base = [c for c,novel in zip(all_['vocab'], all_['novel']) if not novel]
    assert mine['vocab'] == base and any(mine['novel']) and len(mine['is_valid']) == all_['is_valid'].count(False)
    status,text,err = laso('study', trained, '--split', split, '--quick', '--out', tmp_path/'study')
    assert status == 0, err
    assert 'laso-ensemble' in text and 'knows the classes' in text
    assert names(tmp_path/'study') == ['classes.csv', 'fewshot.csv', 'laso-files.json', 'methods.csv', 'operators.csv', 'resampled.safetensors',
                                       'settings.json']

@pytest.mark.parametrize('out', ['file', 'file/sub'])
def test_bad_output(laso, world, trained, tmp_path, monkeypatch, out):
    "Refused before anything is computed."
    (tmp_path/'file').write_text('mine')
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    for command in COMMANDS:
        args = [*options(world), '--frozen'] if command in ('bench', 'extract') else [trained]
        status,said,err = laso(command, *args, '--out', tmp_path/out)
        assert status == 2 and not said, err
        one_sentence(err, 'output folder', str(tmp_path/out), '--out')
    assert (tmp_path/'file').read_text() == 'mine' and not (tmp_path/'cache').exists()

def test_no_run(laso, world, tmp_path):
    (tmp_path/'empty').mkdir()
    for command in COMMANDS[2:]:
        for run in 'empty', 'nowhere':
            status,out,err = laso(command, tmp_path/run)
            assert status == 2 and not out
            one_sentence(err, 'features.npy', str(tmp_path/run), 'laso extract')
    assert [p.name for p in tmp_path.rglob('*')] == ['empty']

def test_missing_stage(laso, trained):
    (trained/'views.safetensors').unlink()
    status,_,err = laso('fewshot', trained)
    assert status == 2, err
    one_sentence(err, 'views.safetensors', 'laso extract')
    (trained/'operators.json').unlink()
    for command in COMMANDS[3:]:
        status,_,err = laso(command, trained)
        assert status == 2, err
        one_sentence(err, 'operators.json', 'laso train')

@pytest.mark.parametrize('file', ['features/features.npy', 'features/features.json', 'views.safetensors',
                                  'operators.safetensors', 'operators.json'])
def test_damaged_stage(laso, trained, file):
    (trained/file).write_text('damaged')
    before = names(trained)
    status,_,err = laso('fewshot', trained)
    assert status == 2, err
    one_sentence(err, Path(file).name)
    assert names(trained) == before

def test_new_features_take_scores_away(laso, world, trained):
    "`laso compare` would take them for those of the new features."
    assert laso('evaluate', trained, '--n-pairs', 20)[0] == 0 and (trained/'evaluate.json').exists()
    assert laso('extract', *options(world), '--frozen', '--seed', 1, '--out', trained)[0] == 0
    assert not (trained/'evaluate.json').exists() and (trained/'operators.json').exists()

def test_other_width(laso, trained):
    "Operators that were trained on the features of another backbone."
    set_ops('mixture', 7).save(trained)
    for command in 'evaluate', 'fewshot':
        status,_,err = laso(command, trained)
        assert status == 2, err
        one_sentence(err, 'width 256', '7')

def test_nothing_left_where_it_is_called(laso, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert laso('bench', '--data', 'nowhere')[0] == laso('extract', '--data', 'nowhere')[0] == 2
    assert not list(tmp_path.iterdir())

def test_unknown_command(laso):
    for args,word in ('bogus', 'bogus'), ('bench --bogus', '--bogus'), ('train', ''), ('bench --seed -1', '--seed'):
        status,out,err = laso(*args.split())
        assert status == 2 and not out and word in err and 'Traceback' not in err

def test_error_in_a_process(world):
    before = state(world)
    p = start(world, 'bench', *options(world, data='nowhere'), '--out', world/'results'/'none')
    out,err = p.communicate(timeout=120)
    assert p.returncode == 2 and not out
    one_sentence(err, 'found no folder nowhere')
    assert state(world) == before and not (world/'results'/'none').exists()

@pytest.mark.skipif(os.name == 'nt', reason='needs signals')
@pytest.mark.parametrize('args,when', [('--epochs 500', 'Features'),
                                       pytest.param('--frozen --ops-epochs 500', 'Operators', marks=pytest.mark.slow)])
def test_interrupted(world, tmp_path, args, when):
    p = start(world, 'bench', *options(world), '--n-pairs', 50, *args.split(), '--out', tmp_path/'out',
              cache=tmp_path/'cache')
    said = ''
    while when not in said and (line := p.stderr.readline()): said += line
    time.sleep(1.5)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=300)
    assert p.returncode == 130 and not out, said + err
    left = names(tmp_path)
    assert not [o for o in left if o.startswith('out')] and not (tmp_path/'out').exists()
    assert not [o for o in left if '/.' in o] and not list((world/'tmp').iterdir())
    one_sentence(said + err, 'interrupted')
