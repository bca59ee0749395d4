"The cache and what is written: damage is told and mended, places that are no files are written to, nobody reads half of an entry."
import json, multiprocessing as mp, os, random, shutil, stat, subprocess, sys, tempfile, threading, time
from pathlib import Path
import pytest
from forked import needs_fork
from laso import store
from laso.core import InputError
from laso.features.table import load_features, toy_table
from laso.fewshot.support import support_sets
from laso.fewshot.views import Views, toy_views
from laso.ops.kinds import SetOps, set_ops
from laso.store import atomic_path, cache_dir, cache_entry, find_cached, together

SKIP_ROOT = pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='needs another user to be')
POSIX = pytest.mark.skipif(os.name != 'posix', reason='devices, pipes and modes of POSIX')

def flip(p, at=.5):
    b = bytearray(p.read_bytes())
    b[min(int(len(b)*at), len(b)-1)] ^= 1
    p.write_bytes(b)

def cut(p): p.write_bytes(p.read_bytes()[:p.stat().st_size//2])
def empty(p): p.write_bytes(b'')
DAMAGE = dict(flipped=flip, first=lambda p: flip(p, 0), last=lambda p: flip(p, 1), truncated=cut, empty=empty)

# Damage in the cache of a command

@needs_fork
@pytest.mark.parametrize('stage', ['bench', 'teach'])
@pytest.mark.parametrize('n', [1, pytest.param(2*len(DAMAGE), marks=pytest.mark.slow)])
def test_every_entry_damaged(stage, n, reference, server, tmp_path):
    "Each entry of the cache in another way: one line for each, and in the end the same bytes as ever."
    ref,rng,told = reference(stage),random.Random(stage),'in the cache damaged; it is made again'
    for i in range(n):
        cache,out = tmp_path/f'cache{i}',tmp_path/f'out{i}'
        shutil.copytree(ref.home/'cache', cache)
        entries = sorted(cache.iterdir())
        for k,p in enumerate(entries):
            inside = sorted(o for o in p.rglob('*') if o.is_file() and o.stat().st_size) if p.is_dir() else [p]
            [*DAMAGE.values()][(i+k)%len(DAMAGE)](rng.choice(inside))
        status,said,_ = server.run(*ref.args(out), cache=cache)
        assert status == 0, said
        lines = [l for l in said.splitlines() if told in l]
        assert len(lines) == len(entries) and all(sum(str(p) in l for l in lines) == 1 for p in entries), said
        ref.check_end(cache, out, {})
        status,said,_ = server.run(*ref.args(out), cache=cache)
        assert status == 0 and told not in said

def unfinished(cache):
    "Checkpoints, and chunks of features."
    return [p for o in ('checkpoint-*.pt', '*.part/*.npy') for p in sorted(cache.glob(o))]

def damage(paths, i):
    for k,p in enumerate(paths): [*DAMAGE.values()][(i+k)%len(DAMAGE)](p)
    return paths

DIES = """
import os
from laso.bench import run
from laso.features import extract
from laso.train.callbacks import Checkpoint
save = Checkpoint._save
def dies(*args): os.kill(os.getpid(), 9)
def saves_and_dies(*args): save(*args); dies()
"""
WHERE_IT_DIES = [('Checkpoint._save = saves_and_dies', 1), ('extract._join = dies', 2), ('run.compute_views = lambda *a, **k: dies()', 2), ('', 0)]

@needs_fork
def test_checkpoints_and_chunks_damaged(reference, server, tmp_path):
    "Killed in fine-tuning, with all chunks of features, and after both other trainings; what is left is damaged, told, made again."
    ref,cache,out,hit = reference('bench'),tmp_path/'cache',tmp_path/'out',[]
    for i,(where,least) in enumerate(WHERE_IT_DIES):
        status,said,_ = server.run(*ref.args(out), cache=cache, before=DIES+where)
        assert status == (-9 if where else 0), said
        for p in hit: assert sum(f'{p} ' in l and 'damaged' in l for l in said.splitlines()) == 1, (p, said)
        assert len(unfinished(cache)) >= least
        hit = damage(unfinished(cache), i)
    ref.check_end(cache, out, {})

@needs_fork
@pytest.mark.slow
def test_checkpoints_and_chunks_damaged_at_any_moment(reference, server, tmp_path):
    ref,rng,n = reference('bench'),random.Random(0),0
    for i in range(20):
        cache,out = tmp_path/f'cache{i}',tmp_path/f'out{i}'
        for _ in range(3):
            server.start(*ref.args(out), cache=cache)
            server.stop(rng.random()*ref.seconds)
            if server.end()[0] == 0: break
            n += len(damage(unfinished(cache), i))
        status,said,_ = server.run(*ref.args(out), cache=cache)
        assert status == 0, said
        ref.check_end(cache, out, {})
    print(f'{n} checkpoints and chunks damaged')

# An entry by itself

@pytest.mark.parametrize('size', [0, 1, store.BLOCK-1, store.BLOCK, 2*store.BLOCK+5])
def test_a_bit_anywhere(size, tmp_path, capsys):
    path = tmp_path/'entry.bin'
    with cache_entry(path) as p: p.write_bytes(os.urandom(size))
    file = find_cached(path)
    whole = file.read_bytes()
    for at in {0, size//3, size//2, size-1} if size else ():
        flip(file, (at+.5)/size)
        store._checked.clear()
        assert find_cached(path) is None
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and 'made again' in said
        file.write_bytes(whole)
    store._checked.clear()
    assert find_cached(path) == file

def test_what_others_hold_is_not_taken_away(tmp_path):
    "An entry that is made again lies beside nothing of the damaged one; a whole one stays, with its inode."
    path = tmp_path/'entry.npy'
    for text in 'first', 'second':
        with cache_entry(path) as p: p.write_text(text)
    file, = tmp_path.iterdir()
    assert file.read_text() == 'first'
    file.write_text('damaged')
    with cache_entry(path) as p: p.write_text('second')
    file, = tmp_path.iterdir()
    assert file.read_text() == 'second' and find_cached(path) == file

def test_old_entries_give_way(tmp_path):
    "Version 0.1.0 kept no digests: such a file is not used, and not kept for ever."
    path = tmp_path/'features-1.npy'
    path.write_text('of an older version')
    assert find_cached(path) is None
    with cache_entry(path) as p: p.write_text('new')
    file, = tmp_path.iterdir()
    assert file.read_text() == 'new'

@needs_fork
def test_four_make_and_read_the_same_entries(tmp_path):
    "Whatever the order, a reader never finds an entry without its files."
    def work():
        for i in range(40):
            path = tmp_path/f'entry-{i}'
            if not find_cached(path):
                with cache_entry(path) as p:
                    p.mkdir()
                    for o in 'abc': (p/o).write_text(o*1000)
            found = find_cached(path, required=True)
            for o in 'abc': assert (found/o).read_text() == o*1000
    jobs = [mp.get_context('fork').Process(target=work) for _ in range(4)]
    for p in jobs: p.start()
    for p in jobs: p.join(120)
    assert [p.exitcode for p in jobs] == [0]*4
    assert len([*tmp_path.iterdir()]) == 40 and not [*tmp_path.rglob('.laso-*')]

# Folders of a run

def test_damaged_files_of_a_run(tmp_path):
    "Nothing makes them again by itself, so they are refused."
    table = toy_table(40)
    sets = support_sets(toy_table(), n_eps=2)
    made = dict(t=lambda: table.save(tmp_path/'t'), v=lambda: toy_views(toy_table(), sets).save(tmp_path/'v'),
                o=lambda: set_ops('mixture', 8, h=4).save(tmp_path/'o'))
    read = dict(t=lambda: load_features(tmp_path/'t'), v=lambda: Views.load(tmp_path/'v'), o=lambda: SetOps.load(tmp_path/'o'))
    file = dict(t=tmp_path/'t/features.npy', v=tmp_path/'v', o=tmp_path/'o/operators.safetensors')
    for k in made:
        for damage in (flip, cut, empty, lambda p: flip(p, 1)):
            made[k]()
            read[k]()
            damage(file[k])
            with pytest.raises(InputError): read[k]()

def test_changed_settings_of_a_run(tmp_path):
    "What has to fit the numbers can't be changed beside them; whoever wants to takes the digest away."
    table = toy_table(40)
    files = tmp_path/'t/features.json',tmp_path/'o/operators.json'
    changes = dict(labels=lambda o: o[::-1], fnames=lambda o: o[::-1], vocab=lambda o: o[::-1], is_valid=lambda o: [*o[1:], o[0]],
                   novel=lambda o: o[::-1]),dict(keep=lambda o: .5)
    for file,read,change in zip(files, (load_features, SetOps.load), changes):
        for k,f in change.items():
            table.save(tmp_path/'t')
            set_ops('logic', 8, h=4).save(tmp_path/'o')
            about = json.loads(file.read_text())
            file.write_text(json.dumps(about, indent=3))   # other spaces say the same
            read(file.parent)
            changed = {**about, k: f(about.get(k))}
            assert changed != about
            file.write_text(json.dumps(changed))
            with pytest.raises(InputError): read(file.parent)
            del changed['digest']
            file.write_text(json.dumps(changed))
            read(file.parent)

# Places that are no plain files

@POSIX
@pytest.mark.parametrize('mode', [0o600, 0o640, 0o644, 0o666])
def test_modes_stay(mode, tmp_path):
    out = tmp_path/'out'
    def write(text):
        with atomic_path(tmp_path/'one') as p: p.write_text(text)
        with atomic_path(tmp_path/'folder') as p:
            p.mkdir()
            (p/'in').write_text(text)
        with together(out, 'last') as new:
            for o in 'last', 'other': (new/o).write_text(text)
    write('first')
    places = [tmp_path/'one', tmp_path/'folder/in', out/'last', out/'other']
    for p in places: p.chmod(mode)
    (tmp_path/'folder').chmod(0o700)
    write('again')
    for p in places: assert (p.read_text(), stat.S_IMODE(p.stat().st_mode)) == ('again', mode), p
    assert stat.S_IMODE((tmp_path/'folder').stat().st_mode) == 0o700

@POSIX
@pytest.mark.parametrize('there', [True, False])
def test_links_are_followed(there, tmp_path):
    far = tmp_path/'far'
    far.mkdir()
    for o in 'one', 'last', 'other':
        if there: (far/f'{o}.real').write_text('former')
        (tmp_path/o).symlink_to(far/f'{o}.real')
    with atomic_path(tmp_path/'one') as p: p.write_text('new')
    with together(tmp_path, 'last') as new:
        for o in 'last', 'other': (new/o).write_text('new')
    for o in 'one', 'last', 'other':
        assert (tmp_path/o).is_symlink() and (far/f'{o}.real').read_text() == 'new'
    assert len([*far.iterdir()]) == 3 and len([*tmp_path.iterdir()]) == 4

@POSIX
def test_folder_behind_a_link(tmp_path):
    (tmp_path/'real').mkdir()
    (tmp_path/'link').symlink_to(tmp_path/'real')
    with atomic_path(tmp_path/'link') as p:
        p.mkdir()
        (p/'in').write_text('new')
    assert (tmp_path/'link').is_symlink() and (tmp_path/'real/in').read_text() == 'new'

@POSIX
def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path/'pipe').read_text()))
    reader.start()
    with atomic_path(tmp_path/'pipe') as p: p.write_text('through')
    reader.join(10)
    assert got == ['through'] and (tmp_path/'pipe').is_fifo()
    (tmp_path/'null').symlink_to('/dev/null')
    for path in Path('/dev/null'), tmp_path/'null':
        with atomic_path(path) as p: p.write_text('away')
        assert Path('/dev/null').is_char_device() and path.is_char_device()
    with together(tmp_path, 'null') as new: (new/'null').write_text('away')
    assert (tmp_path/'null').is_char_device() and Path('/dev/null').is_char_device()
    with pytest.raises(InputError, match='^expected a place that can be written, found /dev/full '):
        with atomic_path('/dev/full') as p: p.write_text('no room')
    with pytest.raises(InputError, match='Is a directory'):
        with atomic_path('/dev/null') as p: p.mkdir()

THROUGH = """
import os,sys
from laso.store import atomic_path
folder,*names = sys.argv[1:]
for i,to in enumerate(names):
    for j,open_it in enumerate((os.pipe, lambda: (None, os.open(f'{folder}/file{i}', os.O_WRONLY|os.O_CREAT|os.O_TRUNC)))):
        r,w = open_it()
        if not os.fork():
            os.dup2(w, 1); os.dup2(w, 2)
            print('before')
            with atomic_path(to) as p: p.write_text('table\\n')
            print('after', flush=True)
            os._exit(0)
        assert os.wait()[1] == 0
        os.close(w)
        text = os.read(r, 1000).decode() if r else open(f'{folder}/file{i}').read()
        assert text.split() == ['before', 'table', 'after'], (to, j, text)
"""

@POSIX
@needs_fork
def test_standard_output_as_a_place(tmp_path):
    "Into a pipe and into a file, between what is printed before and after."
    names = [o for o in ('/dev/stdout', '/dev/stderr', '/dev/fd/1', '/proc/self/fd/1') if os.path.exists(o)]
    p = subprocess.run([sys.executable, '-c', THROUGH, tmp_path, *names], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr

@POSIX
@pytest.mark.parametrize('name,why', [('loop', 'symbolic links'), ('file/in', 'Not a directory'), ('x'*300, 'name too long')])
def test_places_that_can_not_be(name, why, tmp_path):
    (tmp_path/'loop').symlink_to(tmp_path/'loop')
    (tmp_path/'file').touch()
    with pytest.raises(InputError, match=f'^expected a place that can be written, found .*{why}'):
        with atomic_path(tmp_path/name) as p: p.write_text('')
    assert {o.name for o in tmp_path.iterdir()} == {'loop', 'file'}

@pytest.mark.parametrize('n', [240, 255])
def test_long_names(n, tmp_path):
    for i in range(2):
        with atomic_path(tmp_path/('f'*n)) as p: p.write_text('file')
        with atomic_path(tmp_path/('d'*n)) as p: p.mkdir()
        with together(tmp_path/('t'*n), 'l'*n) as new: (new/('l'*n)).write_text('last')
    assert {o.name for o in tmp_path.rglob('*')} == {o*n for o in 'fdtl'}

@SKIP_ROOT
def test_owner_stays(tmp_path):
    (tmp_path/'a').touch()
    os.chown(tmp_path/'a', 12345, 12345)
    (tmp_path/'a').chmod(0o600)
    with atomic_path(tmp_path/'a') as p: p.write_text('new')
    o = (tmp_path/'a').stat()
    assert (o.st_uid, o.st_gid, stat.S_IMODE(o.st_mode)) == (12345, 12345, 0o600)

# The folder of the cache

WHERE = """
import json,os,sys
from laso.core import InputError
from laso.store import cache_dir
for uid,env in json.loads(sys.argv[1]):
    for o in 'HOME', 'XDG_CACHE_HOME', 'LASO_CACHE': os.environ.pop(o, None)
    os.environ.update(env)
    if uid: os.setuid(uid)
    try: print(cache_dir())
    except InputError as e: print(e)
"""

def where(*cases):
    p = subprocess.run([sys.executable, '-c', WHERE, json.dumps(cases)], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    return p.stdout.splitlines()

@pytest.mark.skipif(sys.platform != 'linux', reason='the names that Linux has')
def test_folder_of_the_cache(tmp_path):
    home = str(tmp_path)
    xdg,mine = dict(XDG_CACHE_HOME=f'{home}/xdg'),dict(LASO_CACHE=f'{home}/mine')
    assert where((0, dict(HOME=home)), (0, dict(HOME=home, **xdg)), (0, dict(HOME=home, **xdg, **mine))) == [
        f'{home}/.cache/laso', f'{home}/xdg/laso', f'{home}/mine']

@SKIP_ROOT
def test_no_home_and_no_user():
    with tempfile.TemporaryDirectory() as t:
        os.chmod(t, 0o777)
        assert where((12345, {}), (0, dict(LASO_CACHE=f'{t}/mine'))) == [
            'expected a cache folder that can be written, found no home folder of this user; set LASO_CACHE to a folder', f'{t}/mine']

def test_another_users_old_cache_stays_the_default(tmp_path, monkeypatch):
    "On systems where the folder would be another one, what is in ~/.cache/laso is still used."
    for o in 'LASO_CACHE', 'XDG_CACHE_HOME': monkeypatch.delenv(o, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))
    monkeypatch.setattr(store.platformdirs, 'user_cache_path', lambda *a, **k: tmp_path/'Library/Caches/laso')
    assert cache_dir() == tmp_path/'Library/Caches/laso'
    (tmp_path/'.cache/laso').mkdir(parents=True)
    assert cache_dir() == tmp_path/'.cache/laso'

# Several at once with an empty cache

@needs_fork
@pytest.mark.parametrize('n', [1, pytest.param(200, marks=pytest.mark.slow)])
def test_four_cold_teach_at_once(n, reference, servers, tmp_path):
    "None fails, all taggers are the same, and the cache is that of a single run."
    ref,four,rng = reference('teach'),servers(4),random.Random(n)
    for i in range(n):
        cache,outs = tmp_path/'cache',[tmp_path/str(j) for j in range(4)]
        for s,out in zip(four, outs):
            out.mkdir()
            s.start(*ref.args(out), cache=cache)
            time.sleep(rng.choice([0, 0, .05, .3]))
        for s,out in zip(four, outs):
            status,said,_ = s.end()
            assert status == 0, said
            assert (out/'my.tagger').read_bytes() == ref.want['my.tagger'].read_bytes()
        ref.check_end(cache, outs[0], {})
        assert not [*cache.rglob('.laso-*')]
        for o in cache, *outs: shutil.rmtree(o)

def test_folder_that_goes_away_while_it_is_listed(tmp_path, monkeypatch):
    "Another run has joined the chunks in it: there is no entry, and a new one gets a new folder."
    listed,made = Path.glob,[]
    def glob(self, pattern):
        shutil.rmtree(self)
        raise FileNotFoundError(2, 'No such file or directory', str(self))   # as Python 3.11 says
    def mkdtemp(*args, **kwargs):
        if len(made) < 2: shutil.rmtree(folder, ignore_errors=True)
        made.append(kwargs)
        return temporary(*args, **kwargs)
    folder,temporary = tmp_path/'a.part',tempfile.mkdtemp
    folder.mkdir()
    monkeypatch.setattr(Path, 'glob', glob)
    assert find_cached(folder/'0-3.npy') is None and not folder.exists()
    monkeypatch.setattr(store.tempfile, 'mkdtemp', mkdtemp)
    folder.mkdir()
    with atomic_path(folder/'b') as p: p.write_text('b')
    assert (folder/'b').read_text() == 'b' and len(made) == 3
    monkeypatch.setattr(Path, 'glob', listed)
    assert [o.name for o in folder.iterdir()] == ['b']
    mkdir,asked = os.mkdir,[]
    def vanishes(path, *args, **kwargs):   # between two looks of `Path.mkdir`
        asked.append(path)
        if len(asked) > 1: return mkdir(path, *args, **kwargs)
        raise FileExistsError(17, 'File exists', str(path))
    monkeypatch.setattr(os, 'mkdir', vanishes)
    with atomic_path(tmp_path/'new/c') as p: p.write_text('c')
    assert (tmp_path/'new/c').read_text() == 'c'

def test_chunks_deleted_before_they_are_joined(backbone, tmp_path, monkeypatch):
    "Nobody would write them again, so nobody waits for them."
    from PIL import Image
    from laso.features import extract
    compute = extract._compute_chunk
    def deleted(file, part, *args, **kwargs):
        compute(file, part, *args, **kwargs)
        shutil.rmtree(part.parent)
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr(extract, '_compute_chunk', deleted)
    with pytest.raises(FileNotFoundError, match='0-3.npy'):
        extract.cached_features('features', backbone, [Image.new('RGB', (32, 32))]*3, 'three')

def test_scenes_deleted_while_they_are_drawn(tmp_path, monkeypatch):
    "A folder with holes is none."
    from laso.data import scenes
    drawn = scenes._drawn
    def deleted(*args):
        for n,scene in enumerate(drawn(*args)):
            yield scene   # which is written meanwhile
            if n == 1: next(tmp_path.rglob('00001.jpg')).unlink()
    monkeypatch.setattr(scenes, '_drawn', deleted)
    with pytest.raises(FileNotFoundError, match='deleted'): scenes.make_scenes(tmp_path/'scenes', n_train=3, n_valid=1, size=32)
    assert not (tmp_path/'scenes').exists()
