"Several runs at once, a full disk, a read-only folder, a cache that vanishes, a clock that was set back."
import os, random, shutil, subprocess, time
import pytest
from forked import OUT, content, files, needs_fork, one_sentence

pytestmark = needs_fork

@pytest.fixture
def second(servers): return servers(2)[1]

def same_as(ref, out): assert {k: content(p) for k,p in files(out).items()} == {k: content(p) for k,p in ref.want.items()}

@pytest.mark.parametrize('stage', ['bench', 'teach'])
@pytest.mark.parametrize('n', [1, pytest.param(8, marks=pytest.mark.slow)])
def test_two_at_once(stage, n, reference, server, second, tmp_path):
    "Both end with the right result, and the cache is that of a single run."
    ref,rng = reference(stage),random.Random(n)
    for i in range(n):
        cache,outs = tmp_path/f'cache{i}',[tmp_path/f'{name}{i}' for name in 'ab']
        server.start(*ref.args(outs[0]), cache=cache)
        time.sleep(rng.uniform(0, .5)*ref.seconds*(i > 0))
        second.start(*ref.args(outs[1]), cache=cache)
        for s,out in zip((server, second), outs):
            status,said,_ = s.end()
            assert status == 0, said
            same_as(ref, out)
        ref.check_end(cache, outs[0], {})
        assert not [*cache.rglob('.laso-*')]

@pytest.mark.parametrize('n', [1, pytest.param(8, marks=pytest.mark.slow)])
def test_one_of_two_is_killed(n, reference, server, second, tmp_path):
    ref,rng = reference('bench'),random.Random(n)
    for i in range(n):
        cache,a,b = (tmp_path/f'{o}{i}' for o in ('cache', 'a', 'b'))
        server.start(*ref.args(a), cache=cache)
        second.start(*ref.args(b), cache=cache)
        server.stop(rng.uniform(.1, 1)*ref.seconds)
        server.end()
        status,said,_ = second.end()
        assert status == 0, said
        same_as(ref, b)
        ref.check(cache, b)                                            # the killed one may have left its checkpoint
        status,said,_ = server.run(*ref.args(a), cache=cache)          # with which it goes on
        assert status == 0, said
        for out in a, b: ref.check_end(cache, out, {})

def test_two_at_once_into_one_folder(reference, server, second, tmp_path):
    ref = reference('train')
    for s in server, second: s.start(*ref.args(tmp_path/'out'), cache=tmp_path/'cache')
    for s in server, second: assert s.end()[0] == 0
    same_as(ref, tmp_path/'out')

@pytest.fixture
def disk(tmp_path):
    "`disk(options)`: a disk of its own, mounted again with other options at the next call."
    folder = tmp_path/'disk'
    folder.mkdir()
    def mount(options):
        again = 'remount,' if folder.is_mount() else ''
        for _ in range(6000):   # a disk can't become read-only while a file on it is open for writing
            p = subprocess.run(['mount', '-t', 'tmpfs', '-o', again+options, 'none', folder], capture_output=True, text=True)
            if not p.returncode: return folder
            if 'busy' not in p.stderr: break
            time.sleep(.01)
        pytest.skip(f'needs the right to mount a disk: {p.stderr.strip()}')
    if shutil.which('mount') is None: pytest.skip('needs the command mount')
    yield mount
    if folder.is_mount(): subprocess.run(['umount', folder], check=True)

@pytest.mark.parametrize('where', ['cache', 'out'])
@pytest.mark.parametrize('n', [3, pytest.param(12, marks=pytest.mark.slow)])
def test_full_disk(where, n, reference, server, disk, tmp_path):
    "Whatever finds no room says so in one sentence; with more room the run goes on."
    ref,refused = reference('bench'),0
    need = 2*sum(p.stat().st_size for p in (ref.cache if where == 'cache' else ref.want).values())
    small = disk('size=16k')
    places = dict(cache=tmp_path/'cache', out=tmp_path/'out') | {where: small/where}
    shutil.rmtree(small/where, ignore_errors=True)
    finished = {}
    for i in range(n):
        disk(f'size={16+need*i//n//1024}k')
        status,said,_ = server.run(*ref.args(places['out']), cache=places['cache'])
        if status == 0: break
        assert status == 2, said
        one_sentence(said, 'No space left on device', str(small))
        refused += 1
        assert not [*small.rglob('.laso-*')]
        finished |= ref.check(places['cache'], places['out'])
    assert refused
    disk('size=200m')
    status,said,_ = server.run(*ref.args(places['out']), cache=places['cache'])
    assert status == 0, said
    ref.check_end(places['cache'], places['out'], finished)

@pytest.mark.parametrize('where', ['cache', 'out'])
@pytest.mark.parametrize('stage', OUT)
def test_read_only(stage, where, reference, server, disk, tmp_path):
    ref = reference(stage)
    before = disk('size=20m')
    if where == 'out': shutil.copytree(ref.home/'former', before/'out')
    disk('ro')
    places = dict(cache=tmp_path/'cache', out=tmp_path/'out') | {where: before/where}
    status,said,_ = server.run(*ref.args(places['out']), cache=places['cache'])
    assert status == 2, said
    one_sentence(said, 'Read-only file system', str(before))
    if where == 'out': assert {k: content(p) for k,p in files(before/'out').items()} == {k: content(p) for k,p in ref.former.items()}

@pytest.mark.parametrize('where', ['cache', 'out'])
@pytest.mark.parametrize('n', [1, pytest.param(12, marks=pytest.mark.slow)])
def test_read_only_in_mid_run(where, n, reference, server, disk, tmp_path):
    "The run ends well, if all was written, or with one sentence; with rights again it goes on from what was finished."
    ref,rng = reference('bench'),random.Random(n)
    for i in range(n):
        places = {o: tmp_path/f'{o}{i}' for o in ('cache', 'out')} | {where: disk('rw,size=400m')/f'{where}{i}'}
        server.start(*ref.args(places['out']), cache=places['cache'])
        time.sleep(rng.uniform(.05, .9)*ref.seconds)
        disk('ro')
        status,said,_ = server.end()
        if status:
            assert status == 2, said
            one_sentence(said, 'Read-only file system', str(places[where]))
        disk('rw')
        finished = ref.check(places['cache'], places['out'])
        status,said,_ = server.run(*ref.args(places['out']), cache=places['cache'])
        assert status == 0, said
        ref.check_end(places['cache'], places['out'], finished)

@pytest.mark.parametrize('stage', ['bench', 'teach'])
@pytest.mark.parametrize('n', [1, pytest.param(12, marks=pytest.mark.slow)])
def test_cache_deleted_in_mid_run(stage, n, reference, server, tmp_path):
    "The result is right, or there is none and one sentence."
    ref,rng = reference(stage),random.Random(n)
    for i in range(n):
        cache,out = tmp_path/f'cache{i}',tmp_path/f'out{i}'
        server.start(*ref.args(out), cache=cache)
        time.sleep(rng.uniform(.05, .9)*ref.seconds)
        shutil.rmtree(cache, ignore_errors=True)
        status,said,_ = server.end()
        assert status in (0, 2), said
        if status == 0: same_as(ref, out)
        else:
            one_sentence(said, str(cache))
            assert OUT[stage] not in files(out)
        status,said,_ = server.run(*ref.args(out), cache=cache)
        assert status == 0, said
        same_as(ref, out)

BACK = """
import time
was = time.time
time.time = lambda: was()-10*365*86400
time.strftime = lambda *args: '20160101-000000'
"""

def test_clock_set_back(reference, server, tmp_path):
    "What the cache has is used, though it seems to come from the future; a run never lands in another one's folder."
    ref = reference('bench')
    shutil.copytree(ref.home/'cache', tmp_path/'cache')
    for p in files(tmp_path/'cache').values(): os.utime(p, (time.time()+10*365*86400,)*2)
    known = ref.check(tmp_path/'cache', tmp_path/'nothing')
    assert server.run(*ref.args(tmp_path/'out'), cache=tmp_path/'cache', before=BACK)[0] == 0
    ref.check_end(tmp_path/'cache', tmp_path/'out', known)
    without_out = ref.args(tmp_path/'out')[:-2]
    for i in range(2): assert server.run(*without_out, cache=tmp_path/'cache', before=BACK)[0] == 0
    runs = sorted((server.folder/'runs').iterdir())
    assert [p.name for p in runs] == ['data-20160101-000000', 'data-20160101-000000-2']
    for p in runs: same_as(ref, p)

def test_tagger_never_takes_the_place_of_a_folder(reference, server, tmp_path):
    ref = reference('teach')
    (tmp_path/'my.tagger').mkdir()
    (tmp_path/'my.tagger'/'photo.jpg').write_bytes(b'mine')
    status,said,_ = server.run(*ref.args(tmp_path), cache=ref.home/'cache')
    assert status == 2
    one_sentence(said, 'found a folder for', str(tmp_path/'my.tagger'))
    assert (tmp_path/'my.tagger'/'photo.jpg').read_bytes() == b'mine'

def test_operators_of_other_features(reference, server, tmp_path):
    "Extracted anew with another seed, of the same width: operators trained before are not taken for these features."
    ref,run = reference('train'),tmp_path/'run'
    shutil.copytree(ref.world/'extracted', run)
    shutil.copytree(ref.home/'want', run, dirs_exist_ok=True)
    for command in 'evaluate', 'fewshot': assert server.run(command, run, cache=tmp_path/'cache')[0] == 0
    shutil.rmtree(run/'features')
    shutil.copytree(reference('extract').home/'former'/'features', run/'features')
    for command in 'evaluate', 'retrieve', 'fewshot':
        status,said,_ = server.run(command, run, cache=tmp_path/'cache')
        assert status == 2
        one_sentence(said, 'found those of others', 'laso train')
