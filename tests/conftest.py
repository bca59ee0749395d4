"What all tests share: one thread a process, a cache of their own, a free port, and a way to run something in a clean process."
import multiprocessing as mp
import os, re, socket, sys
from functools import cache
from pathlib import Path
import pytest

for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(name, '1')
os.environ['LASO_PROGRESS'] = '0'   # its words come by the clock
os.environ.setdefault('MPLBACKEND', 'agg')

ROOT = Path(__file__).resolve().parent.parent
PRELOAD = 'torch torchvision fastai.vision.all timm sklearn.metrics matplotlib.pyplot nbdev.test'.split()

def pytest_addoption(parser):
    parser.addoption('--nb-flags', default='', help='run the notebook cells with these flags too, for example "slow cuda"')

def pytest_configure(config):
    if 'LASO_CACHE' not in os.environ: os.environ['LASO_CACHE'] = str(config.cache.mkdir('laso'))

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@cache
def _server():
    "A process that has imported the big libraries, though nothing of laso; every clean process is a copy of it."
    ctx = mp.get_context('forkserver')
    ctx.set_forkserver_preload(PRELOAD)
    return ctx

def _redirected(log, f, args, kwargs):
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2): os.dup2(fd, stream)
    sys.exit(0 if f(*args, **kwargs) is not False else 1)

@pytest.fixture(scope='session')
def world(tmp_path_factory):
    "Images of coloured squares as a data set, and some of them sorted into folders."
    from forked import draw
    path = tmp_path_factory.mktemp('world')
    draw(path)
    return path

@pytest.fixture(scope='session')
def servers(world):
    "`servers(n)`: so many processes that run commands, side by side."
    from forked import Server
    made = []
    def get(n):
        if not made: made.append(Server(world))
        while len(made) < n: made.append(made[0].twin(f'log{len(made)}.txt'))
        return made[:n]
    yield get
    for s in reversed(made): s.close()

@pytest.fixture(scope='session')
def server(servers): return servers(1)[0]

@pytest.fixture(scope='session')
def reference(world, server):
    "`reference(stage)`: a command undisturbed, once for all tests."
    from forked import Reference
    return cache(lambda stage: Reference(world, server, stage))

@pytest.fixture(scope='session')
def backbone():
    "A backbone that is quick: random weights, images of 32 by 32."
    import torch
    from laso.features.backbones import create_backbone
    torch.manual_seed(0)
    return create_backbone('test_efficientnet', weights='random', size=32)

@pytest.fixture
def laso(monkeypatch, capsys):
    "`laso(*args)`: the command in this process; its exit status and what it wrote to the two streams."
    from laso import cli
    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['laso', *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as e: cli.main()
        return e.value.code or 0,*capsys.readouterr()
    return run

@pytest.fixture
def in_clean_process(tmp_path):
    "`run(f, *args, **kwargs)`: call a function of a test module in a process of its own; returns its exit status and what it wrote."
    def run(f, *args, timeout=900, **kwargs):
        log = tmp_path/'log.txt'
        p = _server().Process(target=_redirected, args=(str(log), f, args, kwargs))
        p.start()
        p.join(timeout)
        if p.is_alive(): p.kill(); p.join()
        text = log.read_text(encoding='utf8', errors='replace') if log.exists() else ''
        return p.exitcode, re.sub(r'\x1b\[[0-9;]*m', '', text)
    return run
