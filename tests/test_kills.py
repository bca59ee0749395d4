"Commands that are killed at random moments: what they leave is whole, and the next run ends as if nothing had happened."
import os, random, re, shutil, signal, subprocess, sys, time
import numpy as np
import pytest, torch
from forked import COMMANDS, SMALL, Server, content, draw, files

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork and signals')
OUT = dict(bench='results.json', extract='views.safetensors', train='operators.json', teach='my.tagger')   # written last
KILLS = dict(bench=4, extract=2, train=2, teach=2),dict(bench=45, extract=20, train=20, teach=20)

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp('kills')
    draw(path)
    return path

@pytest.fixture(scope='module')
def server(world):
    s = Server(world)
    yield s
    s.close()

class Reference:
    "A command undisturbed: what it writes, its cache, its seconds; and another run's output, which it will take the place of."
    def __init__(self, world, server, stage):
        self.stage,self.world,self.home = stage,world,world/'reference'/stage
        if stage == 'train': server.run(*COMMANDS['extract'](world, 0), '--out', world/'extracted', cache=world/'any')
        for name,seed in (('former', 1), ('want', 0)):
            shutil.rmtree(self.home/'cache', ignore_errors=True)
            status,said,self.seconds = server.run(*self.args(self.home/name, seed), cache=self.home/'cache')
            assert status == 0, said
        self.want,self.former,self.cache = (files(self.home/o) for o in ('want', 'former', 'cache'))
        assert OUT[stage] in self.want and self.cache.keys().isdisjoint({'operators.pt'})
        assert not [o for o in self.cache if 'checkpoint' in o or '.part' in o], 'an undisturbed run tidies up'

    def args(self, out, seed=0):
        return [*COMMANDS[self.stage](self.world, seed), '--out', out/'my.tagger' if self.stage == 'teach' else out]

    def check(self, cache, out):
        "Nothing is half-written, nothing is stale; returns what is finished."
        for name,p in files(cache).items():
            if name in self.cache: assert p.read_bytes() == self.cache[name].read_bytes(), name
            elif '.part/' in name:
                a,b = map(int, re.findall(r'(\d+)-(\d+)\.npy', name)[0])
                whole = np.load(self.cache[name.partition('.part/')[0]+'.npy'])
                np.testing.assert_array_equal(np.load(p), whole[a:b])
            else:
                assert 'checkpoint' in name, f'{name} is not in the cache of an undisturbed run'
                assert torch.load(p, weights_only=True)['at']
        found = files(out)
        for name,p in found.items(): assert p.read_bytes(), f'{name} is empty'
        if OUT[self.stage] in found:
            same = lambda run: found.keys() == run.keys() and all(content(p) == content(run[k]) for k,p in found.items())
            assert same(self.former) or same(self.want), 'files of two runs are mixed'
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for n,p in files(cache).items() if n in self.cache}

    def check_end(self, cache, out, finished):
        got,kept = files(out),files(cache)
        assert got.keys() == self.want.keys() and kept.keys() == self.cache.keys()
        for k,p in got.items(): assert content(p) == content(self.want[k]), k
        self.check(cache, out)
        for p,was in finished.items(): assert (p.stat().st_ino, p.stat().st_mtime_ns) == was, f'{p.name} was made again'

@pytest.fixture(scope='module')
def reference(world, server):
    made = {}
    def get(stage):
        if stage not in made: made[stage] = Reference(world, server, stage)
        return made[stage]
    return get

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
            if status == 0: break
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
    t = time.monotonic()
    p = command(ref, tmp_path/'first'/'out', tmp_path/'first'/'cache')
    assert p.wait(200) == 0, p.communicate()[1]
    seconds = time.monotonic()-t
    for i in range(n):
        cache,out = places(ref, tmp_path, i)
        p = command(ref, out, cache)
        with pytest.raises(subprocess.TimeoutExpired): p.wait(rng.uniform(.2, .8)*seconds)
        p.kill()
        p.communicate()
        finished = ref.check(cache, out)
        status,said,_ = server.run(*ref.args(out), cache=cache)
        assert status == 0, said
        ref.check_end(cache, out, finished)

@pytest.mark.parametrize('n', [1, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize('sig,status', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(sig, status, n, reference, server, tmp_path):
    "Within five seconds, with one sentence; nothing temporary is left, and the next run goes on."
    ref,rng,hits,i = reference('bench'),random.Random(f'{sig} {n}'),0,0
    while hits < n:
        (cache,out),i = places(ref, tmp_path, i),i+1
        server.start(*ref.args(out), cache=cache)
        at = rng.uniform(.1, .9)*ref.seconds
        server.stop(at, sig)
        got,said,seconds = server.end()
        if got == 0: continue
        hits += 1
        assert got == status and seconds-at < 5, said
        assert [l for l in said.splitlines() if l.startswith('laso: ')] == [
            'laso: interrupted; run the same command again to go on from what is finished'] and 'Traceback' not in said
        assert not [p for p in tmp_path.rglob('.laso-*')]
        finished = ref.check(cache, out)
        assert server.run(*ref.args(out), cache=cache)[0] == 0
        ref.check_end(cache, out, finished)
