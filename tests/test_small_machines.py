"One core, a share of some cores, little memory."
import os, subprocess, sys, time
import numpy as np
import pytest
from PIL import Image

needs_linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs /proc and affinities')

@needs_linux
def test_one_core():
    "Kept to one core, as by `taskset`, everything uses one thread."
    code = '''import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import torch
from laso.core import usable_cores
from laso.data.scenes import _n_workers
print(torch.get_num_threads(), usable_cores(), _n_workers(11000))'''
    env = {k: v for k,v in os.environ.items() if k not in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
    assert subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True).stdout == '1 1 1\n'

@pytest.mark.parametrize('quota,given,want', [(1, None, '1'), (1, '3', '3'), (None, None, None)])
def test_a_share_of_the_cores(laso, monkeypatch, quota, given, want):
    "The share of a control group is the number of PyTorch's threads, unless the user names another."
    monkeypatch.setattr('laso.core.cpu_quota', lambda: quota)
    monkeypatch.setattr('laso.cli.cpu_quota', lambda: quota)
    monkeypatch.setenv('OMP_NUM_THREADS', given or '')
    if not given: monkeypatch.delenv('OMP_NUM_THREADS')
    assert laso('--version')[0] == 0 and os.environ.get('OMP_NUM_THREADS') == want

@pytest.mark.parametrize('given,want', [({}, '1000'), (dict(GOMP_SPINCOUNT='7'), '7'), (dict(OMP_WAIT_POLICY='ACTIVE'), None)])
def test_threads_that_wait(laso, monkeypatch, given, want):
    "They soon sleep, so that a busy machine computes, unless the user says otherwise."
    for o in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):   # set first, so that what the command sets is undone
        monkeypatch.setenv(o, '')
        monkeypatch.delenv(o)
    for o,v in given.items(): monkeypatch.setenv(o, v)
    assert laso('--version')[0] == 0 and os.environ.get('GOMP_SPINCOUNT') == want

def photographs(folder, n):
    "Twelve megapixels each."
    rng = np.random.default_rng(0)
    for i in range(n):
        (folder/'ab'[i%2]).mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
        small.resize((4000, 3000)).save(folder/'ab'[i%2]/f'{i}.jpg')

def most_memory(*args, cwd):
    "The most memory, in bytes, that a command has for itself: what it maps from files can be dropped at any time."
    p = subprocess.Popen([sys.executable, '-c', 'from laso.cli import main; main()', *map(str, args)], cwd=cwd,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    most = 0
    while p.poll() is None:
        try: lines = open(f'/proc/{p.pid}/status').read().splitlines()
        except OSError: break
        most = max([most, *(int(o.split()[1])*1024 for o in lines if o.startswith('RssAnon'))])
        time.sleep(.02)
    assert p.wait() == 0, p.stderr.read()
    return most

@needs_linux
@pytest.mark.slow
def test_tags_in_a_gigabyte(tmp_path):
    "However many photographs, and however large: memory for a batch is all that counts."
    photographs(tmp_path/'few', 12)
    photographs(tmp_path/'many', 150)
    taught = most_memory('teach', 'few', '--out', 'my.tagger', cwd=tmp_path)
    some,all_ = (most_memory('tag', 'my.tagger', o, '--csv', f'{o}.csv', cwd=tmp_path) for o in ('few', 'many'))
    assert max(taught, some, all_) < 1e9, (taught, some, all_)
    assert all_ < some+2e8, (some, all_)   # 150 of these photographs are 5.4 GB
