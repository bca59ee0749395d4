"What all tests share: one thread a process, a cache of their own, a free port, and a way to run something in a clean process."
import multiprocessing as mp
import os, re, socket, sys
from functools import cache
from pathlib import Path
import pytest

for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(name, '1')
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
