"Commands that are killed at random moments: what they leave is whole, and the next run ends as if nothing had happened."
import os, random, shutil, signal, subprocess, sys, time
from pathlib import Path
import pytest
from forked import OUT, SMALL, files, needs_fork

pytestmark = needs_fork
KILLS = dict(bench=2, extract=1, train=1, teach=1),dict(bench=45, extract=25, train=20, teach=15)

def places(ref, tmp_path, i):
    "An empty cache, and a folder with the output of another run."
    home = tmp_path/str(i)
    shutil.copytree(ref.home/'former', home/'out')
    return home/'cache',home/'out'

def killed(ref, server, tmp_path, n, rng, sig=signal.SIGKILL):
    "Kill at `n` random moments, at most three on one cache before a run that ends; returns the number of kills that hit."
    hits,i = 0,0
    while hits < n:
        (cache,out),finished,i = places(ref, tmp_path, i),{},i+1
        for _ in range(rng.randint(1, min(3, n-hits))):
            server.start(*ref.args(out), cache=cache)
            server.stop(rng.uniform(0, ref.seconds), sig)
            status,said,seconds = server.end()
            assert status in (0, -sig), said
            hits += status != 0
            finished |= ref.check(cache, out)
            if status == 0:
                ref.seconds = min(ref.seconds, seconds)   # the machine was busier before
                break
        status,said,_ = server.run(*ref.args(out), cache=cache)
        assert status == 0, said
        ref.check_end(cache, out, finished)
        shutil.rmtree(tmp_path/str(i-1))
    return hits

@pytest.mark.parametrize('stage', OUT)
def test_killed(stage, reference, server, tmp_path):
    assert killed(reference(stage), server, tmp_path, KILLS[0][stage], random.Random(stage)) == KILLS[0][stage]

@pytest.mark.slow
@pytest.mark.parametrize('stage', OUT)
def test_killed_at_many_moments(stage, reference, server, tmp_path):
    t = time.monotonic()
    n = killed(reference(stage), server, tmp_path, KILLS[1][stage], random.Random(f'{stage} again'))
    print(f'{stage}: killed at {n} moments, resumed each time, {time.monotonic()-t:.0f} s')

def command(ref, out, cache, code=SMALL+'import sys; sys.exit(laso.cli.main())'):
    "The command in a new process, imports and all."
    env = dict(os.environ, LASO_CACHE=str(cache), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    return subprocess.Popen([sys.executable, '-c', code, *map(str, ref.args(out))], env=env, cwd=ref.world, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

@pytest.mark.parametrize('n', [1, pytest.param(6, marks=pytest.mark.slow)])
def test_the_real_command_killed(n, reference, server, tmp_path):
    ref,rng = reference('bench'),random.Random(n)
    for i in range(n):
        cache,out = places(ref, tmp_path, i)
        p = command(ref, out, cache)
        while not files(cache) and p.poll() is None: time.sleep(.05)   # it imports first, then works
        with pytest.raises(subprocess.TimeoutExpired): p.wait(rng.uniform(0, .6)*ref.seconds)
        p.kill()
        p.communicate()
        finished = ref.check(cache, out)
        status,said,_ = server.run(*ref.args(out), cache=cache)
        assert status == 0, said
        ref.check_end(cache, out, finished)

@pytest.mark.parametrize('n', [1, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize('sig,status', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(sig, status, n, reference, server, tmp_path):
    "Soon, with one sentence; nothing temporary is left, and the next run goes on."
    ref,rng,hits,i = reference('bench'),random.Random(f'{sig} {n}'),0,0
    while hits < n:
        (cache,out),i = places(ref, tmp_path, i),i+1
        server.start(*ref.args(out), cache=cache)
        at = rng.uniform(.1, .9)*ref.seconds
        server.stop(at, sig)
        got,said,seconds = server.end()
        if got == 0:
            ref.seconds = min(ref.seconds, seconds)
            continue
        hits += 1
        # `GRACE` is 3 s; the bound is far from it, since a busy machine may take its time
        assert got == status and seconds-at < 60, said
        assert [l for l in said.splitlines() if l.startswith('laso: ')] == [
            'laso: interrupted; run the same command again to go on from what is finished'] and 'Traceback' not in said
        assert not [p for p in tmp_path.rglob('.laso-*')]
        finished = ref.check(cache, out)
        assert server.run(*ref.args(out), cache=cache)[0] == 0
        ref.check_end(cache, out, finished)

IDLE = '''import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)   # a background job of a shell ignores it
from laso.data.scenes import _Scenes, _drawn
scenes = _drawn(_Scenes([(i, False) for i in range(3000)], 0, 128), 2)
next(scenes)
time.sleep(2)   # meanwhile the others fill what they hand over
print('ready', flush=True)
time.sleep(60)'''

@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs /proc')
@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGKILL])
def test_those_who_draw_end_too(sig):
    "Processes that draw scenes do not outlive the one that asked them to, however that ends."
    p = subprocess.Popen([sys.executable, '-c', IDLE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    assert p.stdout.readline() == 'ready\n'
    drawing = Path(f'/proc/{p.pid}/task/{p.pid}/children').read_text().split()
    os.killpg(p.pid, sig) if sig == signal.SIGINT else p.kill()
    p.wait(30)
    until = time.monotonic()+60
    while left := [o for o in drawing if Path(f'/proc/{o}').exists()]:
        assert time.monotonic() < until, left
        time.sleep(.1)
    assert len(drawing) == 2
