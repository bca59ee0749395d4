"What a command writes, and where its words go: nothing of anyone else's is harmed, and no finished work is lost."
import csv, json, os, shutil, subprocess, sys
import pytest
from PIL import Image
from typer.testing import CliRunner
from forked import DRAWN, content, files, needs_fork, network, one_sentence
from laso import cli
from laso.bench.output import RECORD
from laso.core import InputError
from laso.features.table import toy_table
from laso.store import digest

pytestmark = needs_fork

@pytest.fixture(scope='module')
def laso(world, server):
    "`laso(*args)`: the command with one cache for all; exit status and what it said."
    def run(*args, before='', **env): return server.run(*args, cache=world/'cache', before=DRAWN+before, **env)[:2]
    return run

def quick(world, *more):
    return ['bench', '--data', world/'data', *network(world), '--episodes', 2, '--n-pairs', 20, '--ops', 'analytic', '--frozen', *more]

@pytest.fixture(scope='module')
def made(world, laso):
    "A folder of `laso bench`, and one of `laso extract` and `train`."
    assert laso(*quick(world), '--out', world/'made/bench')[0] == 0
    status,said = laso('extract', '--data', world/'data', *network(world), '--episodes', 2, '--frozen', '--out', world/'made/run')
    assert status == 0, said
    assert laso('train', world/'made/run', '--ops-epochs', 1)[0] == 0
    return world/'made'

@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path/'made')
    return tmp_path/'made'

def bytes_of(folder): return {n: p.read_bytes() for n,p in files(folder).items()}

def test_record(made):
    "Names and digests of all files, and of nothing else."
    for o in 'bench', 'run':
        kept = json.loads((made/o/RECORD).read_text())['files']
        assert kept == {n: [digest(p)] for n,p in files(made/o).items() if n != RECORD}

MINE = dict(
    bench=('bench', 'curves.png'), bench_table=('bench', 'per_class.csv'), bench_results=('bench', 'results.json'),
    train=('run', 'operators.json'), train_curves=('run', 'curves.png'), extract=('run', 'features/photo.jpg'),
    extract_views=('run', 'views.safetensors'), evaluate=('run', 'evaluate.json'), retrieve=('run', 'retrieve.json'),
    fewshot=('run', 'fewshot.png'), study=('run', 'settings.json'), study_rows=('run', 'fewshot.csv'))

@pytest.mark.parametrize('case', MINE)
def test_a_file_in_the_way(case, world, laso, copy, monkeypatch):
    "Refused before the work starts, in a sentence that names it; nothing changes."
    folder,name = MINE[case]
    out = copy/folder
    (out/name).write_bytes(b'mine')
    before,command = bytes_of(copy),case.partition('_')[0]
    args = quick(world) if command == 'bench' else [command, *([] if command == 'extract' else [out])]
    if command == 'extract': args += ['--data', world/'data', *network(world), '--frozen']
    status,said = laso(*args, '--out', out)
    assert status == 2, said
    one_sentence(said, 'found '+name, str(out), '--out')
    assert 'Operators' not in said and bytes_of(copy) == before

def test_files_of_others_stay(world, laso, copy):
    "Beside what a command writes, whatever they are called; those of our own go, when they tell of other operators."
    run,notes = copy/'run',['paper-mine.md', 'weights.safetensors', 'fewshot.txt', 'evaluate.json.bak', 'history.csv.old']
    for o in 'evaluate', 'fewshot':
        assert laso(o, run, *['--n-pairs', 20]*(o == 'evaluate'))[0] == 0
    for o in notes:
        for f in copy.iterdir(): (f/o).write_text('mine')
    (run/'retrieve.json').write_text('mine')   # `train` does not write it
    assert laso('train', run, '--ops-epochs', 1, '--seed', 1)[0] == 0
    assert not {'evaluate.json', 'fewshot.json', 'fewshot.png', 'fewshot.safetensors'} & files(run).keys()
    assert laso(*quick(world), '--out', copy/'bench')[0] == 0
    assert {(f/o).read_text() for o in notes for f in copy.iterdir()} == {'mine'} == {(run/'retrieve.json').read_text()}

def test_changed_files_stay(world, laso, copy):
    status,said = laso(*quick(world), '--out', copy/'bench')   # its own: replaced
    assert status == 0, said
    (copy/'bench/report.html').write_text('with my notes')
    status,said = laso(*quick(world), '--out', copy/'bench')
    assert status == 2 and 'report.html' in said and (copy/'bench/report.html').read_text() == 'with my notes'

def test_a_folder_without_a_record(world, laso, copy):
    "As version 0.1.0 left it: names that its results account for may be replaced."
    for o in copy.iterdir(): (o/RECORD).unlink()
    for o in 'results.safetensors', 'backbone.safetensors': (copy/'bench'/o).unlink()   # which it did not write
    (copy/'bench/curves.png').write_text('mine')   # analytic operators have no curves
    before = bytes_of(copy)
    status,said = laso(*quick(world), '--out', copy/'bench')
    assert status == 2 and 'curves.png' in said and bytes_of(copy) == before
    (copy/'bench/curves.png').unlink()
    assert laso(*quick(world), '--out', copy/'bench')[0] == 0
    status,said = laso('train', copy/'run', '--ops-epochs', 1)
    assert status == 0, said
    assert set(json.loads((copy/'run'/RECORD).read_text())['files']) == files(copy/'run').keys()-{RECORD}
    (copy/'other').mkdir()
    (copy/'other/results.json').write_text('{"mine": 1}')
    status,said = laso(*quick(world), '--out', copy/'other')
    assert status == 2 and 'results.json' in said and (copy/'other/results.json').read_text() == '{"mine": 1}'

@pytest.mark.parametrize('args', ['bench --out', 'extract --out', 'train RUN --out', 'evaluate RUN --out', 'study RUN --out',
                                  'teach TAUGHT --out', 'tag TAGGER IMAGE --csv', 'perf --out'])
def test_no_name(args, world, laso, tmp_path):
    status,said = laso(*args.replace('RUN', str(world)).split(), '')
    assert status == 2, said
    one_sentence(said, 'found an empty one')

# Words

ENCODINGS = dict(cp1252='cp1252', cp437='cp437', ascii='ascii', gbk='gbk', latin='latin-1')

def in_shell(world, tmp_path, *args, how='', **env):
    "The real command, with its streams as `how` says."
    code = 'import sys; from laso.cli import main; main()'
    line = ' '.join(map(str, [sys.executable, '-c', f"'{code}'", *args]))
    env = {k: v for k,v in os.environ.items() if k != 'PYTHONIOENCODING'} | env | dict(
        LASO_CACHE=str(world/'cache'), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    p = subprocess.run(['bash', '-c', f'set -o pipefail; {line} {how}'], env=env, cwd=tmp_path, capture_output=True)
    return p.returncode,p.stdout,p.stderr

@pytest.mark.parametrize('encoding', ENCODINGS)
def test_old_encodings(encoding, world, laso, made, tmp_path):
    "Characters that the stream does not know are written otherwise; the run counts."
    for args in ['compare', made/'bench', made/'bench'], ['evaluate', made/'run', '--n-pairs', 20, '--out', made/encoding]:
        before = f'import io; sys.stdout = io.TextIOWrapper(open({str(tmp_path/"words")!r}, "wb"), {encoding!r})'
        status,said = laso(*args, before=before)
        assert status == 0 and 'Traceback' not in said, said
        words = (tmp_path/'words').read_bytes().decode(encoding)
        assert words.count('\n') > 9 and '−' not in words
    assert (made/encoding/'evaluate.json').is_file()

@pytest.mark.parametrize('how', ['| true', *[pytest.param(o, marks=pytest.mark.slow) for o in ('>&- 2>&-', '>&-', '2>/dev/full')]])
def test_closed_pipe_and_closed_streams(how, world, made, tmp_path):
    "Nobody reads, or nobody can: files are there, figures too whatever matplotlib was told; the status is that of the work."
    status,_,err = in_shell(world, tmp_path, 'fewshot', made/'run', '--out', tmp_path/'out', how=how, PYTHONUNBUFFERED='1',
                            MPLBACKEND='junk')
    assert status == 0 and b'Traceback' not in err and b'Exception' not in err, (status, err)
    assert json.loads((tmp_path/'out/fewshot.json').read_text()) and (tmp_path/'out/fewshot.png').is_file()

def test_tag_writes_first(world, laso, tmp_path):
    "Then says what it found; names in it are text, for a terminal and for a spreadsheet."
    assert laso('teach', world/'taught', *network(world), '--plain', '--out', tmp_path/'my.tagger')[0] == 0
    photos = tmp_path/'photos'
    photos.mkdir()
    evil = ['=1+1.png', '-a\x1b[2J.png', '+b\n.png', '@猫.png']
    for o in evil: shutil.copy(world/'data/images/000.png', photos/o)
    monkey = ['tag', tmp_path/'my.tagger', *[o for o in evil if o[0] != '-'], './'+evil[1], '--csv', tmp_path/'tags.csv']
    status,out,err = in_shell(world, photos, *[f"$'{str(o)}'" if isinstance(o, str) else o for o in monkey], how='| head -0',
                              PYTHONIOENCODING='ascii', PYTHONUNBUFFERED='1')
    assert status == 0 and not err, err
    with open(tmp_path/'tags.csv', newline='') as f: cells = [c for r in csv.reader(f) for c in r]
    assert len(cells) > 20 and not [c for c in cells if c[:1] in ('=', '+', '-', '@', '\t')]

# Figures

def test_settings_of_matplotlib(world, laso, made, tmp_path):
    "A user's settings change no figure."
    before = "import matplotlib; matplotlib.rcParams.update({'text.usetex': True, 'font.size': 30})"
    status,said = laso(*quick(world), '--out', tmp_path/'tex', before=before)
    assert status == 0 and 'left out' not in said, said
    for p in (made/'bench').glob('*.png'): assert p.read_bytes() == (tmp_path/'tex'/p.name).read_bytes()

def test_a_figure_that_fails(world, laso, made, tmp_path):
    "Is left out, which is said in a line; all numbers are there."
    before = "import laso.evaluate.plots as p\ndef broken(*a, **k): raise RuntimeError('no LaTeX\\nfound')\np.operator_bars = broken"
    status,said = laso(*quick(world), '--out', tmp_path/'out', before=before)
    assert status == 0 and said.count('laso: left out operators.png') == 1, said
    assert files(tmp_path/'out').keys() == files(made/'bench').keys()-{'operators.png'}
    assert content(tmp_path/'out/results.json')['operators'] == content(made/'bench/results.json')['operators']

# A study

@pytest.fixture(scope='module')
def study(world, laso):
    "`study(*args)` on features that are nothing but classes, as `laso`; and the settings that it chose."
    toy_table(120, 12, 4, 16).save(world/'toy/features')
    def run(*args, **env): return laso('study', world/'toy', '--quick', *args, **env)
    status,said = run('--out', world/'studied', LASO_PROGRESS='1')
    assert status == 0 and all(f'{o} …' in said for o in ('Settings', 'Operators and their rivals', 'Few-shot methods')), said
    return run

def test_study_goes_on(world, study, tmp_path):
    "Stopped after its operators were trained, it goes on from there, and the end is the same; no file is of two runs."
    stop = "from laso.lab import study\ndef stopped(*a, **k): raise KeyboardInterrupt\nstudy.fewshot_rows = stopped"
    status,said = study('--out', tmp_path/'got', before=stop)
    assert status == 130 and not (tmp_path/'got').exists(), said
    never = "from laso.lab import study\ndef never(*a, **k): raise RuntimeError('trained again')\nstudy.train_ops = study.choose = never"
    status,said = study('--out', tmp_path/'got', before=never)
    assert status == 0, said
    assert bytes_of(tmp_path/'got') == bytes_of(world/'studied')
    assert not list((world/'cache').glob('parts-*'))

@pytest.mark.parametrize('change', [
    dict(ensembles={'x': dict(without=[], laso=[])}), dict(ensembles={'1000': dict(without=[], laso=[])}), dict(ensembles={}),
    dict(ensembles={'1': dict(without=[dict(share=1, method='MLProtoNet', nothing=1)], laso=[])}), dict(single=dict(nothing={})),
    dict(single=dict(logistic=dict(l2='x', centre=True))), dict(ensembles=[])], ids=str)
def test_damaged_settings(change, world, study, tmp_path):
    "Refused before the training."
    chosen = json.loads((world/'studied/settings.json').read_text())
    (tmp_path/'settings.json').write_text(json.dumps(chosen | change))
    never = "from laso.lab import study\ndef never(*a, **k): raise RuntimeError('trained')\nstudy.train_ops = never"
    status,said = study('--like', tmp_path/'settings.json', '--out', tmp_path/'out', before=never)
    assert status == 2, said
    one_sentence(said)
    assert not (tmp_path/'out').exists()

# Options

@pytest.mark.parametrize('args', ['--seed 18446744073709551616', '--seed -1', '--episodes 9999999999999', '--epochs 1'+400*'0',
                                  '--n-pairs 1'+400*'0'], ids=lambda o: o[:20])
def test_numbers(args, world, laso, tmp_path):
    status,said = laso('bench', '--data', world/'data', *network(world), *args.split(), '--out', tmp_path/'out')
    assert status == 2 and 'Traceback' not in said and not (tmp_path/'out').exists(), said

def test_surroundings(world, laso, made, tmp_path):
    status,said = laso('evaluate', made/'run', '--out', tmp_path/'out', RANK='abc')
    assert status == 2 and 'RANK' in said and 'Traceback' not in said
    (tmp_path/'labels.csv.gz').write_text('junk')
    status,said = laso('perf', '--quick', '--labels', tmp_path)
    assert status == 2, said
    one_sentence(said, 'labels.csv.gz')

@pytest.mark.parametrize('number', ['1'+400*'0', '1e400'])
def test_numbers_in_results(number, laso, copy):
    file = copy/'bench/results.json'
    res = json.loads(file.read_text())
    res['fewshot'][0]['map'] = 'HERE'
    file.write_text(json.dumps(res).replace('"HERE"', number))
    status,said = laso('compare', copy/'bench', copy/'bench')
    assert status == 2, said
    one_sentence(said, 'results.json')


@pytest.mark.parametrize('args', ['compare RUN RUN', 'evaluate RUN', 'bench --data nowhere'])
def test_one_file_for_two_results(args, tmp_path):
    "Refused before anything is read."
    (tmp_path/'fewshot.json').write_text('[]')
    for other in ('t', '../{}/t'.format(tmp_path.name)):
        line = [*args.replace('RUN', str(tmp_path)).split(), '--latex', str(tmp_path/'t'), '--csv', str(tmp_path/other)]
        r = CliRunner().invoke(cli.app, line)
        assert isinstance(r.exception, InputError) and 'another file for each result' in str(r.exception), (r.exception, r.output)
    assert not (tmp_path/'t').exists()


@pytest.mark.parametrize('make', [
    lambda photos, run, f: ('teach', photos, '--out', f),
    lambda photos, run, f: ('compare', run, run, '--latex', f),
    lambda photos, run, f: ('compare', run, run, '--csv', f),
    lambda photos, run, f: ('perf', '--quick', '--out', f)])
def test_a_single_file_of_others_stays(make, tmp_path, monkeypatch):
    "Every command that writes one named file, before anything long begins."
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    photos = tmp_path/'photos'
    for tag in 'ab':
        (photos/tag).mkdir(parents=True)
        Image.new('RGB', (9, 9), 'red').save(photos/tag/f'{tag}.png')
    run = tmp_path/'run'
    run.mkdir()
    (run/'fewshot.json').write_text('[]')
    mine = tmp_path/'mine.txt'
    mine.write_text('of someone else')
    r = CliRunner().invoke(cli.app, [*map(str, make(photos, run, mine))])
    assert isinstance(r.exception, InputError) and 'which laso did not write' in str(r.exception), (r.exception, r.output)
    assert mine.read_text() == 'of someone else'
