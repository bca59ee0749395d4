"The leaderboard: entries by the command, numbers computed independently, and files that anyone may send."
import copy, csv, json, sys
import numpy as np
import pytest, torch
from scipy import stats
from sklearn.metrics import average_precision_score
from helpers import refused
from laso import cli
from laso.bench.output import write_json
from laso.core import InputError
from laso.lab.leaderboard import BOARD, read_entry
from laso.store import digest

METHOD = '''def nearest(t):
    means = t.y.T @ t.x
    return t.query @ (means/means.norm(dim=1, keepdim=True)).T
'''
N,N_TRAIN,CLASSES = 240,160,'dog cat bird car tree boat'.split()

def vectors(path): return '--features',path/'x.npy','--labels',path/'labels.csv','--novel','dog,boat'

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Vectors that are noisy sums of one random vector a class, and two entries on them."
    path,g = tmp_path_factory.mktemp('world'),np.random.default_rng(0)
    y = g.random((N, 6)) < .4
    np.save(path/'x.npy', (y @ g.random((6, 12)) + .3*g.random((N, 12))).astype(np.float32))
    lines = [[f'{i}', ' '.join(np.array(CLASSES)[r]), str(i >= N_TRAIN)] for i,r in enumerate(y)]
    with open(path/'labels.csv', 'w', newline='') as f:
        csv.writer(f).writerows([['fname', 'labels', 'is_valid'], *lines])
    (path/'mine.py').write_text(METHOD)
    args = ['laso', 'leaderboard', 'enter', *vectors(path), '--method', f'{path/"mine.py"}:nearest', '--method', 'ridge',
            '--out', path/'entries']
    with pytest.MonkeyPatch.context() as m:
        m.setenv('LASO_CACHE', str(path/'cache'))
        m.setattr(sys, 'argv', list(map(str, args)))
        with pytest.raises(SystemExit) as e: cli.main()
    assert not e.value.code
    return path,y

def entry_of(world, name='nearest'): return world[0]/'entries'/f'{name}.entry.json'

def test_numbers_are_those_of_scikit_learn_and_of_the_formula(world):
    "Means of average precision over sets and classes; variance from images and from sets, Welch's degrees of freedom."
    from laso.features.vectors import read_vectors
    from laso.fewshot.support import support_sets
    path,y = world
    x,novel = np.load(path/'x.npy'),[CLASSES.index(o) for o in ('boat', 'dog')]
    o = read_entry(entry_of(world))
    sets = support_sets(read_vectors(path/'x.npy', path/'labels.csv', ['dog', 'boat']), n_shots=(1, 5), n_eps=100)
    for r in o['results']:
        mine = [s for s in sets if s.shot == r['shot']]
        def ap(s, c):
            rows = s.rows.numpy()
            m = x[rows].T @ y[rows][:,novel].astype(np.float32)
            return average_precision_score(y[N_TRAIN:,novel[c]], x[N_TRAIN:] @ (m[:,c]/np.linalg.norm(m[:,c])))
        aps = np.array([[ap(s, c) for c in (0, 1)] for s in mine])
        assert np.abs(aps.mean(1)-r['method']['maps']).max() < .02   # float32 may swap near ties
        assert np.allclose(list(r['per_class'].values()), aps.mean(0), atol=2e-3)
        assert np.isclose(aps.mean(), r['map'], atol=2e-3)
        d = np.array(r['method']['maps'])-r['linear']['maps']
        images,sets_ = np.var(np.array(r['method']['boot'])-r['linear']['boot'], ddof=1),d.var(ddof=1)/100
        half = stats.t.ppf(.975, (images+sets_)**2/(images**2/499+sets_**2/99))*(images+sets_)**.5
        assert np.allclose([r['diff_low'], r['diff_high']], [d.mean()-half, d.mean()+half], atol=1e-6)

def test_commands(world, laso, tmp_path):
    "Checked, verified and put into a table; a method that is another is refused."
    path,file = world[0],entry_of(world)
    assert laso('leaderboard', 'check', file)[0] == 0
    own = '--method',f'{path/"mine.py"}:nearest'
    status,out,err = laso('leaderboard', 'check', file, *vectors(path), *own)
    assert status == 0 and 'run again' in out, err
    assert 'expected --method FILE.py:nearest' in laso('leaderboard', 'check', file, *vectors(path))[2]
    (tmp_path/'mine.py').write_text(METHOD+'\n# other\n')
    status,_,err = laso('leaderboard', 'check', file, *vectors(path), '--method', f'{tmp_path/"mine.py"}:nearest')
    assert status == 2 and 'file of the method' in err
    status,out,_ = laso('leaderboard', 'table', path/'entries', '--out', tmp_path/'board')
    assert status == 0 and {p.name for p in (tmp_path/'board').iterdir()} == {*BOARD, 'laso-files.json'}
    text = (tmp_path/'board'/BOARD[0]).read_text()
    assert text.index('the support set only') < text.index('| ridge |') and '| nearest |' in text

def test_an_entry_names_no_file_to_run(world, laso, tmp_path):
    "Code that lies beside an entry is run only if the user names it."
    o = json.loads(entry_of(world).read_text()) | dict(method=dict(name=f'{tmp_path}/evil.py:f', source='', uses='support set'))
    (tmp_path/'evil.py').write_text(f"open({str(tmp_path/'ran')!r}, 'w')\ndef f(t): return t.query[:,:1]")
    o['digest'] = digest({k: v for k,v in o.items() if k != 'digest'})
    (tmp_path/'a.entry.json').write_text(json.dumps(o))
    status,_,err = laso('leaderboard', 'check', tmp_path/'a.entry.json', *vectors(world[0]))
    assert status == 2 and 'expected --method FILE.py:f' in err and not (tmp_path/'ran').exists(), err

@pytest.mark.parametrize('args,part', [
    (('enter',), 'expected --method'), (('enter', '--method', 'ridge'), '--features with --labels'),
    (('enter', 'nowhere', '--method', 'ridge'), 'in nowhere'), (('enter', '--method', 'rigde'), "expected a folder"),
    (('check', 'nowhere.json'), 'found no file'), (('check', 'a.json', '--method', 'ridge'), 'expected --verify'),
    (('table', 'nowhere'), 'found none')])
def test_mistakes_are_one_sentence(laso, args, part):
    status,out,err = laso('leaderboard', *args)
    assert status == 2 and not out and err.startswith('laso: expected ') and err.count('\n') == 1 and part in err, err

def places(o, at=()):
    "Where all values of nested lists and dicts are."
    yield at
    pairs = o.items() if isinstance(o, dict) else enumerate(o[:3]) if isinstance(o, list) else ()
    for k,v in pairs: yield from places(v, (*at, k))

def changed(o, at, value):
    if not at: return value
    res = inner = copy.deepcopy(o)
    for k in at[:-1]: inner = inner[k]
    inner[at[-1]] = value
    return res

def test_a_file_of_anyone_is_read_or_refused(world, tmp_path):
    "Every value of an entry replaced by others, with a right digest: an entry with sound numbers, or one sentence."
    o = json.loads(entry_of(world).read_text())
    file,n = tmp_path/'a.entry.json',0
    for i,at in enumerate(places(o)):
        if len(at) > 1 and at[0] in ('protocol', 'versions'): continue
        value = (None, -1, [], {}, 'x', 1e308, True, [[]], '\ud800')[i%9]
        bad = changed(o, at, value)
        if isinstance(bad, dict): bad['digest'] = digest({k: v for k,v in bad.items() if k != 'digest'})
        file.write_text(json.dumps(bad))
        try: read_entry(file)
        except InputError: n += 1
    assert n > 50
    for text in ('', '[', '{"schema": 1}', '[[[', 'NaN', '\0'):
        file.write_text(text)
        refused(lambda: read_entry(file), 'found something else')
    write_json(o, file)
    assert read_entry(file) == o
