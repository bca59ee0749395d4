"The tagger from the command line, and files that only look like taggers."
import csv, json, pickle
import pytest, torch
from safetensors import safe_open
from safetensors.torch import save_file
from laso import cli
from laso.data.folder import read_folder
from laso.data.scenes import make_scenes
from laso.tag.tagger import load_tagger

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Pictures sorted by tag, new ones, and a tagger."
    path = tmp_path_factory.mktemp('tags')
    with pytest.MonkeyPatch.context() as m:
        m.setenv('LASO_CACHE', str(path/'cache'))
        data = read_folder(make_scenes(path/'scenes', n_train=120, n_valid=150, size=64), n_shot=1)
        for c in range(4):
            for i in data.train_ids[data.labels[data.train_ids][:,c] > 0][:4].tolist():
                (path/'taught'/data.vocab[c]).mkdir(parents=True, exist_ok=True)
                data.open(i).save(path/'taught'/data.vocab[c]/f'{i}.png')
        (path/'new').mkdir()
        for i in data.valid_ids[:6].tolist(): data.open(i).save(path/'new'/f'{i}.png')
        yield path,sorted(data.vocab[:4])

@pytest.fixture(scope='module')
def taught(world):
    from typer.testing import CliRunner
    r = CliRunner().invoke(cli.app, ['teach', str(world[0]/'taught'), '--size', '64', '--plain', '--out', str(world[0]/'my.tagger')])
    assert r.exit_code == 0 and '4 tags' in r.output and 'leave-one-out' in r.output, r.output
    return world[0]/'my.tagger'

def test_tag(world, taught, laso, tmp_path):
    status,out,err = laso('tag', taught, world[0]/'new', '--csv', tmp_path/'out.csv')
    assert status == 0 and not err and len(out.splitlines()) == 6
    rows = list(csv.DictReader(open(tmp_path/'out.csv', encoding='utf8')))
    assert list(rows[0]) == ['fname', 'labels', *world[1]] and len(rows) == 6
    for row,line in zip(rows, out.splitlines()):
        assert line.startswith(row['fname']) and all(t in line for t in row['labels'].split())
        assert all(0 <= float(row[t]) <= 1 for t in world[1])

def test_version(laso):
    from importlib.metadata import version
    assert laso('--version')[:2] == (0, f"laso {version('laso')}\n")

def test_bad_input(world, taught, laso, tmp_path):
    (tmp_path/'text.jpg').write_text('no picture')
    (tmp_path/'empty').mkdir()
    for args,part in [(('tag', tmp_path/'none', world[0]/'new'), 'found no file'), (('tag', taught, 'no.jpg'), 'no.jpg (no file)'),
                      (('tag', taught, tmp_path/'text.jpg'), 'text.jpg'), (('tag', taught, tmp_path/'empty'), 'at least one image'),
                      (('teach', tmp_path/'empty'), 'sub-folder of images'), (('teach', tmp_path/'none'), 'found no'),
                      (('teach', world[0]/'taught', '--size', -3), 'at least 8 pixels, found -3'),
                      (('teach', world[0]/'taught', '--size', 1100), 'at most 1024 pixels, found 1100'),
                      (('teach', world[0]/'taught', '--run', tmp_path), 'results.json'),
                      (('compare', tmp_path, tmp_path), 'results.json')]:
        status,out,err = laso(*args)
        assert status == 2 and part in err and err.count('\n') == 1 and err.startswith('laso: expected'), (args, err)

def damaged(file, tmp_path, change):
    "The tagger with its header or numbers changed."
    with safe_open(file, 'pt') as f: about,arrays = json.loads(f.metadata()['laso']),{k: f.get_tensor(k) for k in f.keys()}
    change(about, arrays)
    save_file(arrays, tmp_path/'bad.tagger', metadata=dict(laso=json.dumps(about)))
    return tmp_path/'bad.tagger'

@pytest.mark.parametrize('change', [
    lambda about,arrays: about.pop('tags'), lambda about,arrays: about['tags'].append('more'),
    lambda about,arrays: about.update(tags=[1, 2, 3, 4]), lambda about,arrays: arrays.pop('coef'),
    lambda about,arrays: arrays.update(x=arrays['x'][:,:5].contiguous()), lambda about,arrays: about.update(slope='steep'),
    lambda about,arrays: about['backbone'].update(name='no_such_model'), lambda about,arrays: about.update(ops=dict(kind='rm')),
    lambda about,arrays: arrays.update(offset=torch.full((4,), float('nan')))])
def test_damaged_tagger(taught, tmp_path, change):
    "Refused with a sentence, whatever is wrong."
    with pytest.raises(ValueError, match='^expected '): load_tagger(damaged(taught, tmp_path, change))

class Evil:
    def __reduce__(self): return print, ('code ran',)

def test_pickle_is_refused(tmp_path, capsys):
    (tmp_path/'evil').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match='found something else'): load_tagger(tmp_path/'evil')
    (tmp_path/'deep').write_bytes((10**5).to_bytes(8, 'little') + b'['*10**5)
    with pytest.raises(ValueError, match='found something else'): load_tagger(tmp_path/'deep')
    assert 'code ran' not in capsys.readouterr().out
