"What all tests share: one thread a process, a cache of their own, a free port, and a way to run something in a clean process."
import multiprocessing as mp
import os, re, shutil, socket, sys
from functools import cache,partial
from pathlib import Path
from filelock import FileLock
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

def _redirected(log, env, f, args, kwargs):
    mp.set_start_method('fork', force=True)   # as usual; otherwise its own processes import everything anew
    os.environ.update(env)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2): os.dup2(fd, stream)
    sys.exit(0 if f(*args, **kwargs) is not False else 1)

@pytest.fixture(scope='session')
def once(tmp_path_factory):
    "`once(name, make)`: a folder that `make(folder)` fills, once for all workers of this run, whoever comes first."
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: base = base.parent
    def get(name, make):
        place,done = base/name,base/f'{name}.done'
        with FileLock(base/f'{name}.lock'):
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                make(place)
                done.touch()
        return place
    return get

@pytest.fixture(scope='session')
def world(tmp_path_factory):
    "Images of coloured squares as a data set, and some of them sorted into folders."
    from forked import draw
    path = tmp_path_factory.mktemp('world')
    draw(path)
    return path

def _started(f, *args):
    from forked import ONE_THREAD
    p = _server().Process(target=_redirected, args=(os.devnull, ONE_THREAD, f, args, {}))
    p.start()
    return p

@pytest.fixture(scope='session')
def servers(world):
    "`servers(n)`: so many processes that run commands, side by side."
    from forked import Server
    made = []
    def get(n):
        if not made: made.append(Server(world, process=_started))
        while len(made) < n: made.append(made[0].twin(f'log{len(made)}.txt'))
        return made[:n]
    yield get
    for s in reversed(made): s.close()

@pytest.fixture(scope='session')
def server(servers): return servers(1)[0]

@pytest.fixture(scope='session')
def reference(once, server):
    "`reference(stage)`: a command undisturbed, once for all tests of all workers."
    from forked import Reference, draw
    def get(stage):
        ref = Reference(once('world', draw), stage)
        once(f'world-{stage}', lambda _: ref.make(server))
        return ref.read()
    return cache(get)

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
def in_clean_processes(tmp_path):
    "`run(n, f, *args, **kwargs)`: a function of a test module in `n` processes side by side, told so as `torchrun` does; see below."
    def run(n, f, *args, timeout=900, env={}, **kwargs):
        log = tmp_path/'log.txt'
        log.unlink(missing_ok=True)
        shared = dict(env, WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port())) if n > 1 else env
        rank = lambda i: dict(RANK=str(i), LOCAL_RANK=str(i)) if n > 1 else {}
        ps = [_server().Process(target=_redirected, args=(str(log), shared|rank(i), f, args, kwargs)) for i in range(n)]
        for p in ps: p.start()
        for p in ps:
            p.join(timeout)
            if p.is_alive(): p.kill(); p.join()
        text = log.read_text(encoding='utf8', errors='replace') if log.exists() else ''
        return next((p.exitcode for p in ps if p.exitcode), 0),re.sub(r'\x1b\[[0-9;]*m', '', text)
    return run

@pytest.fixture
def in_clean_process(in_clean_processes):
    "`run(f, *args, **kwargs)`: call a function of a test module in a process of its own; returns its exit status and what it wrote."
    return partial(in_clean_processes, 1)
