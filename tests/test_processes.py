"Several processes share a run; a killed one goes on; tables of 16 bits."
import json,os,platform,shutil,signal,subprocess,sys
from pathlib import Path
import numpy as np
import pytest
from conftest import free_port
from forked import network
from PIL import Image
import torch
from safetensors.torch import load_file
from laso.store import find_cached

# `copies` are processes with the variables that both launchers set: quick. The launchers themselves start every process from nothing.
LAUNCH = dict(torchrun='torch.distributed.run --standalone --nproc-per-node=2 --no-python',
    # accelerate starts several processes without MPI only where it is told of several GPUs; laso finds none and uses gloo
    accelerate='accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no '
               '--dynamo_backend no --main_process_port {port} --no_python')   # old versions of accelerate know no port 0
HOW = ['copies', *(pytest.param(o, marks=pytest.mark.slow) for o in LAUNCH)]

def launched(launcher, *args, cache):
    "A command in two processes of a launcher."
    env = dict(os.environ, LASO_CACHE=str(cache), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    launch = [sys.executable, '-m', *LAUNCH[launcher].format(port=free_port()).split()]
    p = subprocess.run(launch+list(map(str, args)), env=env, capture_output=True, text=True, timeout=400)
    assert p.returncode == 0, p.stderr
    return p.stdout

laso_command = Path(sys.executable).parent/'laso'

CHUNK = 16   # so that each process has its share of a few images

def laso_main(*args):
    from laso import cli
    from laso.features import extract
    extract.CHUNK = CHUNK
    sys.argv = ['laso', *map(str, args)]
    cli.main()

def extract(data, out, *more): return 'extract',*data,'--frozen','--episodes',2,*more,'--out',out

def made_by_one(out, cache, *args):
    from laso import cli
    with pytest.MonkeyPatch.context() as m:
        m.setenv('LASO_CACHE', str(cache))
        m.setattr(sys, 'argv', ['laso', *map(str, args)])
        with pytest.raises(SystemExit) as e: cli.main()
    assert not e.value.code
    return out

@pytest.fixture(scope='module')
def squares(world): return ['--data', world/'data', *network(world)]

@pytest.fixture(scope='module')
def table(world, squares):
    "What `laso extract` makes by itself, of few images in several chunks."
    from laso.features import extract as features
    out = world/'processes'
    with pytest.MonkeyPatch.context() as m:
        m.setattr(features, 'CHUNK', CHUNK)
        return made_by_one(out, world/'processes-cache', *extract(squares, out))

@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    "The same of more images, as the command is."
    tmp = tmp_path_factory.mktemp('scenes')
    return made_by_one(tmp/'run', tmp/'cache', *extract(['--quick', '--size', 64], tmp/'run'))

def same_bytes(said, one, two, cache):
    assert said.count('written to') == 1
    for f in ('features/features.npy', 'features/features.json', 'views.safetensors'):
        assert (one/f).read_bytes() == (two/f).read_bytes()
    assert not list(cache.glob('*.part'))

def test_two_processes_extract_the_same_bytes(squares, table, in_clean_processes, tmp_path):
    status,said = in_clean_processes(2, laso_main, *extract(squares, tmp_path/'run'), env=dict(LASO_CACHE=str(tmp_path/'cache')))
    assert status == 0, said
    same_bytes(said, table, tmp_path/'run', tmp_path/'cache')

@pytest.mark.slow
@pytest.mark.parametrize('launcher', LAUNCH)
def test_launchers_extract_the_same_bytes(launcher, scenes, tmp_path):
    said = launched(launcher, laso_command, *extract(['--quick', '--size', 64], tmp_path/'run'), cache=tmp_path/'cache')
    same_bytes(said, scenes, tmp_path/'run', tmp_path/'cache')

def train_operators(features, out, kind):
    from fastai.optimizer import SGD   # Adam turns the rounding of a gradient near zero into a whole step
    from laso.features.table import load_features
    from laso.train.recipes import ops_learner
    torch.manual_seed(0)
    if kind == 'logic': learn,lr = ops_learner(load_features(features), n_pairs=2048),.01
    else: learn,lr = ops_learner(load_features(features), 'mixture', h=32, p=0., n_pairs=2048),.1
    learn.opt_func = SGD
    with learn.no_bar(), learn.no_logging(): ops = learn.fit_ops(1, lr)
    ops.save(out)

TRAIN = f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_processes import *; train_operators(*sys.argv[1:])'

@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('kind,learned', [('mixture', 'net.3.weight'), ('logic', 'net.net.2.weight')])
def test_two_processes_train_the_same_operators(how, kind, learned, table, in_clean_processes, tmp_path):
    def train(n):
        args = str(table/'features'),str(tmp_path/f'ops{n}'),kind
        if n == 2 and how in LAUNCH: launched(how, sys.executable, '-c', TRAIN, *args, cache=tmp_path)
        else:
            status,said = in_clean_processes(n, train_operators, *args, env=dict(LASO_CACHE=str(tmp_path)))
            assert status == 0, said
        return load_file(tmp_path/f'ops{n}/operators.safetensors')
    one,two = train(1),train(2)
    assert one[f'union.{learned}'].abs().max() > 0   # it learned something
    for k in one: torch.testing.assert_close(one[k], two[k], atol=1e-5, rtol=1e-3)

@pytest.mark.slow
@pytest.mark.parametrize('launcher', ['torchrun', 'accelerate'])
def test_laso_train_with_two_processes(launcher, table, tmp_path):
    "As users start it, from nothing."
    said = launched(launcher, laso_command, 'train', table, '--ops-epochs', 1, '--out', tmp_path/'out', cache=tmp_path)
    assert said.count('operators written') == 1
    assert {'operators.safetensors', 'history.csv', 'curves.png'} <= {f.name for f in (tmp_path/'out').iterdir()}

def extract_killed(file, last, seen):
    "Features of thirty images, with a name for each one that was read; image number `last` kills the process."
    from laso.features import extract as features
    from laso.features.backbones import create_backbone
    features.CHUNK = 8
    class Images:
        def __len__(self): return 30
        def __getitem__(self, i):
            if i == last: os.kill(os.getpid(), signal.SIGKILL)
            (seen/str(i)).touch()
            return Image.fromarray(np.random.default_rng(i).integers(256, size=(40, 40, 3), dtype=np.uint8))
    torch.manual_seed(0)
    backbone = create_backbone('test_efficientnet', weights='random', size=32)
    features._compute(file, backbone, Images(), bs=4, dtype='float32')

def test_a_killed_extraction_goes_on_and_ends_with_the_same_file(tmp_path, in_clean_process):
    def go(name, last):
        seen = tmp_path/f'seen-{name}-{last}'
        seen.mkdir()
        status,said = in_clean_process(extract_killed, tmp_path/name, last, seen)
        return status,len([*seen.iterdir()]),said
    assert go('whole.npy', -1)[:2] == (0, 30)
    assert go('again.npy', 20)[0] == -signal.SIGKILL
    assert not [*tmp_path.glob('again*.npy')]
    assert go('again.npy', -1)[:2] == (0, 14)   # two chunks of eight were kept
    again,whole = (find_cached(tmp_path/f'{o}.npy') for o in ('again', 'whole'))
    assert again.read_bytes() == whole.read_bytes()
    assert not (tmp_path/'again.part').exists()

def memory_kept():
    from laso.train.learner import kept_memory
    def mb(): return next(int(o.split()[1]) for o in open('/proc/self/status') if o.startswith('RssAnon'))/1000
    def use(): [torch.ones(2**24) for _ in range(4)]   # 268 MB
    start,used = mb(),[]
    use(); used.append(mb()-start)
    with kept_memory(): use(); used.append(mb()-start)
    used.append(mb()-start)
    print(*(u > 200 for u in used))

@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc alone can be told so')
def test_memory_is_kept_and_given_back(in_clean_process):
    status,said = in_clean_process(memory_kept)
    assert said.split() == ['False', 'True', 'False'], said

def test_features_in_16_bits(squares, laso, tmp_path, monkeypatch):
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    def run(*args):
        status,_,err = laso(*args)
        assert status == 0, err
    def extracted(name, *options):
        run(*extract(squares, tmp_path/name, '--representation', 'pooled', *options))
        return np.load(tmp_path/name/'features/features.npy')
    x = extracted('whole')
    assert x.dtype == np.float32
    for name,options,bound in (('half', ['--float16'], 1e-3), ('rough', ['--float16', '--bf16'], .1)):
        half = extracted(name, *options)
        assert half.dtype == np.float16
        assert 0 < np.abs(x-half).mean() < bound*np.abs(x).mean()
    status,_,err = laso('train', tmp_path/'half', '--bf16')   # the default kind has no use for it
    assert status == 2 and 'found bf16' in err, err
    for cmd in ('train', 'evaluate', 'fewshot'):
        run(cmd, tmp_path/'half', *(['--bf16', '--ops', 'mixture', '--ops-epochs', 1] if cmd == 'train' else []))
    scores = json.loads((tmp_path/'half/fewshot.json').read_text())
    assert all(0 < o['map'] <= 1 for o in scores)

PARTS = {'machine', 'rivals', 'training', 'parts', 'mlp', 'retrieval', 'features'}

@pytest.fixture
def perf(in_clean_process, tmp_path):
    "`perf(*options)`: what `laso perf --quick` measured, in a process of its own."
    def run(*options):
        status,said = in_clean_process(laso_main, 'perf', '--quick', '--out', tmp_path/'perf.json', *options)
        assert status == 0, said
        return json.loads((tmp_path/'perf.json').read_text())
    return run

def test_perf_writes_what_it_measured(perf):
    res = perf()
    assert set(res) == PARTS
    jobs = {o['job'].split(',')[0] for o in res['rivals']}
    assert jobs == {'few-shot', 'train operators', 'search', 'features of 4 photographs'}

@pytest.mark.parametrize('option,column,rows', [('--growth', 'exponent', 30), ('--large', 'mb', 5), ('--index', 'recall', 7),
                                                ('--sets', 'half', 2)])
def test_parts_of_perf(perf, option, column, rows):
    res = perf(option)
    assert len(res) == rows and all(column in o for o in res)

def test_perf_on_the_labels_of_coco(perf):
    folder = Path(__file__).parents[2]/'shared/data/coco_labels'
    if not folder.is_dir(): pytest.skip('the labels of COCO are not here')
    assert perf('--sets', '--labels', folder)[1]['heads'] == 40

def test_perf_names_the_devices_there_are(laso):
    status,_,err = laso('perf', '--device', 'abacus')
    assert status == 2 and err.strip() == "laso: expected a device of cpu, found 'abacus'; choose one of these"

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_perf_on_a_gpu(tmp_path):
    p = subprocess.run([laso_command, 'perf', '--quick', '--device', 'cuda', '--out', tmp_path/'perf.json'], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    res = json.loads((tmp_path/'perf.json').read_text())
    assert set(res) == PARTS-{'rivals'} and 'compiled' in {o['way'] for o in res['training']}

def compare_compiled(backend):
    from torch import nn
    from laso.ops.kinds import set_ops
    from laso.train.losses import LaSO, LaSOLoss
    def gradients(compile):
        torch.manual_seed(0)
        net,loss = LaSO(set_ops('residual', 16), nn.Linear(16, 5)).double().train(),LaSOLoss(unit=2.)
        if compile:
            for part in (net, loss): part.compile(backend=backend, dynamic=False)
        fx,fy = torch.rand(2, 8, 16, dtype=torch.float64)
        lx,ly = (torch.rand(2, 8, 5) < .4).double()
        res = loss(net(fx, fy), lx, ly)
        res.backward()
        return [res.detach(), *loss.terms.values(), *(p.grad for p in net.parameters())]
    for a,b in zip(gradients(False), gradients(True), strict=True): torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 1   # it was compiled
    print('the same')

def train_compiled(folder):
    "A learner whose network and loss are compiled ends as one without, is saved and gives operators that are saved."
    from fastai.learner import load_learner
    from laso.features.table import toy_table
    from laso.ops.kinds import SetOps
    from laso.train.callbacks import seeded
    from laso.train.recipes import ops_learner
    def trained(compile):
        with seeded(0):
            learn = ops_learner(toy_table(), 'residual', n_pairs=512, bs=64, device='cpu')
            if compile:
                for part in (learn.model, learn.loss_func): part.compile(backend='aot_eager', dynamic=False)
            with learn.no_bar(), learn.no_logging(): return learn, learn.fit_ops(2)
    (plain,want),(learn,ops) = trained(False),trained(True)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 1   # it was compiled
    for k,v in want.state_dict().items(): torch.testing.assert_close(ops.state_dict()[k], v, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(learn.curves['valid_loss'], plain.curves['valid_loss'], atol=1e-3, rtol=1e-3)
    learn.path = folder
    learn.export('learner.pkl')
    assert load_learner(folder/'learner.pkl').model.ops.made == ops.made
    ops.save(folder/'ops')
    assert all(v.equal(ops.state_dict()[k]) for k,v in SetOps.load(folder/'ops').state_dict().items())
    print('the same')

compiler = pytest.mark.skipif(not shutil.which('g++'), reason='torch.compile needs a C++ compiler')

@pytest.mark.parametrize('backend', ['aot_eager', pytest.param('inductor', marks=[pytest.mark.slow, compiler])])
def test_compiled_training_gives_the_same_gradients(in_clean_process, backend):
    status,said = in_clean_process(compare_compiled, backend, env=dict(TORCHINDUCTOR_COMPILE_THREADS='1'))
    assert status == 0 and said.splitlines()[-1] == 'the same', said

def test_a_compiled_learner_learns_the_same(in_clean_process, tmp_path):
    status,said = in_clean_process(train_compiled, tmp_path)
    assert status == 0 and said.splitlines()[-1] == 'the same', said
