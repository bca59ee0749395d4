"Several processes share a run; a killed one goes on; tables of 16 bits."
import json,os,platform,shutil,signal,subprocess,sys
from pathlib import Path
import numpy as np
import pytest
from conftest import free_port
import torch
from safetensors.torch import load_file
from laso.store import find_cached

LAUNCH = dict(torchrun='torch.distributed.run --standalone --nproc-per-node=2 --no-python',
    # accelerate starts several processes without MPI only where it is told of several GPUs; laso finds none and uses gloo
    accelerate='accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no '
               '--dynamo_backend no --main_process_port {port} --no_python')   # old versions of accelerate know no port 0

def run(cmd, cache, processes=1, launcher='torchrun', **kwargs):
    env = dict(os.environ, LASO_CACHE=str(cache), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    launch = [sys.executable, '-m', *LAUNCH[launcher].format(port=free_port()).split()] if processes > 1 else []
    return subprocess.run(launch+list(map(str, cmd)), env=env, capture_output=True, text=True,
                          timeout=400, **kwargs)

laso = Path(sys.executable).parent/'laso'

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "The same table, extracted by one process and by two."
    res = {}
    for n in (1, 2):
        out = tmp_path_factory.mktemp(f'by{n}')
        p = run([laso, 'extract', '--quick', '--frozen', '--episodes', 2, '--size', 64, '--out', out/'run'], out/'cache', n)
        assert p.returncode == 0, p.stderr
        assert p.stdout.count('written to') == 1
        res[n] = out
    return res

def test_two_processes_extract_the_same_bytes(runs):
    for f in ('features/features.npy', 'features/features.json', 'views.safetensors'):
        assert (runs[1]/'run'/f).read_bytes() == (runs[2]/'run'/f).read_bytes()
    assert not list((runs[2]/'cache').glob('*.part'))

TRAIN = """
import sys,torch
from laso.features.table import load_features
from laso.train.recipes import ops_learner
from fastai.optimizer import SGD   # Adam turns the rounding of a gradient near zero into a whole step
table = load_features(sys.argv[1])
torch.manual_seed(0)
if sys.argv[3] == 'logic': learn,lr = ops_learner(table, n_pairs=2048),.01
else: learn,lr = ops_learner(table, 'mixture', h=32, p=0., n_pairs=2048),.1
learn.opt_func = SGD
with learn.no_bar(), learn.no_logging(): ops = learn.fit_ops(1, lr)
ops.save(sys.argv[2])
"""

@pytest.mark.parametrize('kind,launcher,learned', [('mixture', 'torchrun', 'net.3.weight'), ('mixture', 'accelerate', 'net.3.weight'),
                                                   ('logic', 'torchrun', 'net.net.2.weight')])
def test_two_processes_train_the_same_operators(runs, tmp_path, kind, launcher, learned):
    (tmp_path/'train.py').write_text(TRAIN)
    for n in (1, 2):
        p = run([sys.executable, tmp_path/'train.py', runs[1]/'run/features', tmp_path/f'ops{n}', kind],
                tmp_path, n, launcher)
        assert p.returncode == 0, p.stderr
    one,two = (load_file(tmp_path/f'ops{n}/operators.safetensors') for n in (1, 2))
    assert one[f'union.{learned}'].abs().max() > 0   # it learned something
    for k in one: torch.testing.assert_close(one[k], two[k], atol=1e-5, rtol=1e-3)

def test_accelerate_extracts_the_same_bytes(runs, tmp_path):
    p = run([laso, 'extract', '--quick', '--frozen', '--episodes', 2, '--size', 64, '--out', tmp_path/'run'],
            tmp_path/'cache', 2, 'accelerate')
    assert p.returncode == 0, p.stderr
    assert p.stdout.count('written to') == 1
    name = 'features/features.npy'
    assert (runs[1]/'run'/name).read_bytes() == (tmp_path/'run'/name).read_bytes()

@pytest.mark.parametrize('launcher', LAUNCH)
def test_laso_train_with_two_processes(runs, tmp_path, launcher):
    p = run([laso, 'train', runs[1]/'run', '--ops-epochs', 1, '--out', tmp_path/'out'], tmp_path, 2, launcher)
    assert p.returncode == 0, p.stderr
    assert p.stdout.count('operators written') == 1
    assert {'operators.safetensors', 'history.csv', 'curves.png'} <= {f.name for f in (tmp_path/'out').iterdir()}

KILLED = """
import os,signal,sys
import numpy as np
from pathlib import Path
from PIL import Image
from laso.features import extract as features
from laso.features.backbones import create_backbone
features.CHUNK = 8
seen,last = [],int(sys.argv[2])
class Images:
    def __len__(self): return 30
    def __getitem__(self, i):
        if i == last: os.kill(os.getpid(), signal.SIGKILL)
        seen.append(i)
        return Image.fromarray(np.random.default_rng(i).integers(256, size=(40, 40, 3), dtype=np.uint8))
features._compute(Path(sys.argv[1]), create_backbone(size=32), Images(), bs=4, dtype='float32')
print(len(seen))
"""

def test_a_killed_extraction_goes_on_and_ends_with_the_same_file(tmp_path):
    (tmp_path/'killed.py').write_text(KILLED)
    go = lambda name,last: run([sys.executable, tmp_path/'killed.py', tmp_path/name, last], tmp_path)
    assert go('whole.npy', -1).stdout.split() == ['30']
    assert go('again.npy', 20).returncode == -signal.SIGKILL
    assert not [*tmp_path.glob('again*.npy')]
    assert go('again.npy', -1).stdout.split() == ['14']   # two chunks of eight were kept
    again,whole = (find_cached(tmp_path/f'{o}.npy') for o in ('again', 'whole'))
    assert again.read_bytes() == whole.read_bytes()
    assert not (tmp_path/'again.part').exists()

KEPT = """
import torch
from laso.train.learner import kept_memory
def mb(): return next(int(o.split()[1]) for o in open('/proc/self/status') if o.startswith('RssAnon'))/1000
def use(): [torch.ones(2**24) for _ in range(4)]   # 268 MB
start,used = mb(),[]
use(); used.append(mb()-start)
with kept_memory(): use(); used.append(mb()-start)
used.append(mb()-start)
print(*(u > 200 for u in used))
"""

@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc alone can be told so')
def test_memory_is_kept_and_given_back(tmp_path):
    (tmp_path/'kept.py').write_text(KEPT)
    p = run([sys.executable, tmp_path/'kept.py'], tmp_path)
    assert p.stdout.split() == ['False', 'True', 'False'], p.stderr

def test_features_in_16_bits(runs, tmp_path):
    def extracted(name, *options):
        p = run([laso, 'extract', '--quick', '--frozen', '--representation', 'pooled', '--episodes', 2, '--size', 64, *options,
                 '--out', tmp_path/name], runs[1]/'cache')
        assert p.returncode == 0, p.stderr
        return np.load(tmp_path/name/'features/features.npy')
    x = extracted('whole')
    assert x.dtype == np.float32
    for name,options,bound in (('half', ['--float16'], 1e-3), ('rough', ['--float16', '--bf16'], .1)):
        half = extracted(name, *options)
        assert half.dtype == np.float16
        assert 0 < np.abs(x-half).mean() < bound*np.abs(x).mean()
    p = run([laso, 'train', tmp_path/'half', '--bf16'], tmp_path)   # the default kind has no use for it
    assert p.returncode == 2 and 'found bf16' in p.stderr, p.stderr
    for cmd in ('train', 'evaluate', 'fewshot'):
        options = ['--bf16', '--ops', 'mixture', '--ops-epochs', 1] if cmd == 'train' else []
        p = run([laso, cmd, tmp_path/'half', *options], tmp_path)
        assert p.returncode == 0, p.stderr
    scores = json.loads((tmp_path/'half/fewshot.json').read_text())
    assert all(0 < o['map'] <= 1 for o in scores)

PARTS = {'machine', 'training', 'fewshot', 'parts', 'mlp', 'retrieval', 'features'}

def perf(tmp_path, *options):
    p = run([laso, 'perf', '--quick', '--out', tmp_path/'perf.json', *options], tmp_path)
    assert p.returncode == 0, p.stderr
    return json.loads((tmp_path/'perf.json').read_text())

def test_perf_writes_what_it_measured(tmp_path):
    assert set(perf(tmp_path)) == PARTS

@pytest.mark.parametrize('option,column,rows', [('--growth', 'exponent', 30), ('--large', 'mb', 5), ('--index', 'recall', 7),
                                                ('--sets', 'half', 2)])
def test_parts_of_perf(tmp_path, option, column, rows):
    res = perf(tmp_path, option)
    assert len(res) == rows and all(column in o for o in res)

def test_perf_on_the_labels_of_coco(tmp_path):
    folder = Path(__file__).parents[2]/'shared/data/coco_labels'
    if not folder.is_dir(): pytest.skip('the labels of COCO are not here')
    assert perf(tmp_path, '--sets', '--labels', folder)[1]['heads'] == 40

def test_perf_names_the_devices_there_are(tmp_path):
    p = run([laso, 'perf', '--device', 'abacus'], tmp_path)
    assert p.returncode == 2 and p.stderr.strip() == "laso: expected a device of cpu, found 'abacus'; choose one of these"

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_perf_on_a_gpu(tmp_path):
    p = subprocess.run([laso, 'perf', '--quick', '--device', 'cuda', '--out', tmp_path/'perf.json'], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    res = json.loads((tmp_path/'perf.json').read_text())
    assert set(res) == PARTS and 'compiled' in {o['way'] for o in res['training']}

COMPILED = """
import torch
from torch import nn
from laso.train.losses import LaSO, LaSOLoss
from laso.ops.kinds import set_ops
def gradients(loss):
    torch.manual_seed(0)
    net = LaSO(set_ops('residual', 16), nn.Linear(16, 5)).double().train()
    fx,fy = torch.rand(2, 8, 16, dtype=torch.float64)
    lx,ly = (torch.rand(2, 8, 5) < .4).double()
    res = loss(net, fx, fy, lx, ly)
    res.backward()
    return [res.detach(), *(p.grad for p in net.parameters())]
def stacked(net, fx, fy, lx, ly): return LaSOLoss()(net(fx, fy), lx, ly)
for a,b in zip(gradients(stacked), gradients(torch.compile(stacked))): torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
print('the same')
"""

@pytest.mark.skipif(not shutil.which('g++'), reason='torch.compile needs a C++ compiler')
def test_compiled_training_gives_the_same_gradients(tmp_path):
    (tmp_path/'compiled.py').write_text(COMPILED)
    p = run([sys.executable, tmp_path/'compiled.py'], tmp_path)
    assert p.stdout.strip() == 'the same', p.stderr
