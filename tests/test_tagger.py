"The tagger from the command line, and files that only look like taggers."
import csv, json, pickle, subprocess, sys
import numpy as np, pytest, torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from laso import cli
from laso.data.folder import read_folder
from laso.data.scenes import make_scenes
from laso.features.backbones import create_backbone
from laso.features.concepts import LinearHead
from laso.features.dictionaries import with_head
from laso.tag.start import BOTH
from laso.tag.tagger import FewShotTagger, load_tagger

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

LIGHT = """import sys
from laso.cli import app
app(sys.argv[1:], standalone_mode=False)
print(*[m for m in ('torch', 'timm', 'sklearn', 'pandas', 'fastai', 'matplotlib') if m in sys.modules])"""

def test_tagging_loads_no_more_than_it_needs(world, taught):
    "Counted in modules, not in seconds: scikit-learn and pandas take a quarter as long to import as all the rest."
    out = subprocess.run([sys.executable, '-c', LIGHT, 'tag', taught, world[0]/'new'], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(out) == 7 and out[-1] == 'torch timm'

def test_version(laso):
    from importlib.metadata import version
    assert laso('--version')[:2] == (0, f"laso {version('laso')}\n")

def test_bad_input(world, taught, laso, tmp_path):
    (tmp_path/'text.jpg').write_text('no picture')
    (tmp_path/'empty').mkdir()
    for args,part in [(('tag', tmp_path/'none', world[0]/'new'), 'found no file'), (('tag', taught, 'no.jpg'), 'found no file no.jpg'),
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

# Concepts

IMAGES = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)) for i in range(8)]
LABELS = [['tabby'], ['b'], ['tabby', 'b'], [], ['tabby'], ['b'], ['b'], ['c']]

@pytest.fixture(scope='module', params=['own', 'linear'])
def rich(request, tmp_path_factory):
    "A tagger of pooled features beside concepts, and its file."
    with torch.random.fork_rng():
        torch.manual_seed(0)   # of the weights: with some, concepts are surely worse
        backbone = create_backbone('test_efficientnet', size=32, weights='random', concepts=True)
    if request.param == 'linear':
        g = torch.Generator().manual_seed(0)
        backbone = with_head(backbone, LinearHead(torch.randn(5, 256, generator=g), names=['tabby, tabby cat', 'wall', 'roof', 'sea', 'sky']), (.5, 1.))
    t = FewShotTagger.teach(IMAGES, LABELS, backbone=backbone, show=False)
    return t,t.export(tmp_path_factory.mktemp('rich')/f'{request.param}.tagger')

def test_concepts_in_a_file(rich, tmp_path):
    "A tagger with concepts predicts and learns on as before it was written."
    t,file = rich
    again = load_tagger(file)
    assert again.backbone.choice.weights == BOTH and again.backbone.concepts == t.backbone.concepts and again.gain == t.gain
    assert (again.report, again.head.ops.config) == (t.report, t.head.ops.config) and 'features: pooled beside concepts' in t.report
    np.testing.assert_allclose(again.predict_proba(IMAGES, show=False), t.predict_proba(IMAGES, show=False), atol=1e-6)
    one,other = (load_tagger(o).add(IMAGES[:2], [['d'], ['b']]) for o in (file, again.export(tmp_path/'again')))
    assert one.tags == sorted([*t.tags, 'd']) and one.backbone.choice.weights == BOTH and one.head.prior.names == one.tags
    np.testing.assert_array_equal(one.predict_proba(IMAGES, show=False), other.predict_proba(IMAGES, show=False))

def test_the_same_again(rich):
    t,_ = rich
    b = FewShotTagger.teach(IMAGES, LABELS, backbone=t.backbone, show=False)   # its choice stays
    np.testing.assert_array_equal(b.predict_proba(IMAGES, show=False), t.predict_proba(IMAGES, show=False))
    assert b.gain is None and not FewShotTagger.teach(IMAGES, LABELS, backbone=t.backbone, names=False, ops=None).head.prior

def in_backbone(**kw): return lambda about,arrays: about['backbone'].update(kw)
def changed(k, f): return lambda about,arrays: arrays.update({k: f(arrays[k])})

@pytest.mark.parametrize('change', [
    in_backbone(taus=[]), in_backbone(taus=[.5]*9), in_backbone(taus=['.5']), in_backbone(taus=None), in_backbone(taus={'a': 1}), in_backbone(taus=[1e300*1e300]), in_backbone(taus=[-1.]),
    in_backbone(head='other'), in_backbone(head=None), in_backbone(head=['own']), in_backbone(choice={}), in_backbone(choice=[]), in_backbone(choice={'pooled': 1}), in_backbone(choice={'pooled': 1, 'concepts': -1}),
    in_backbone(choice={'pooled': 1, 'concepts': 'x'}), in_backbone(choice={'pooled': 1, '../x': 1}), in_backbone(choice=None), lambda about,arrays: about['backbone'].pop('choice'), lambda about,arrays: about['backbone'].pop('head'),
    changed('choice.scale', lambda v: 0*v), changed('choice.scale', lambda v: -v), changed('choice.mean', lambda v: v/0), changed('choice.mean', lambda v: v[:3].clone()), lambda about,arrays: arrays.pop('choice.mean'),
    changed('prior', lambda v: v+2), changed('prior', lambda v: v-1), changed('prior', lambda v: v[:1].clone()), changed('prior', lambda v: v/0), lambda about,arrays: (about.update(names=False), arrays.update(prior=torch.ones(3))),
    lambda about,arrays: about.update(gain=[1, 2]), lambda about,arrays: about.update(gain='abc'), lambda about,arrays: about.update(gain=[float('inf')]*3), lambda about,arrays: about.update(gain={})])
def test_damaged_concepts(rich, tmp_path, change):
    with pytest.raises(ValueError, match='^expected a tagger'): load_tagger(damaged(rich[1], tmp_path, change))

@pytest.mark.parametrize('change', [in_backbone(concepts=[*'abcd']), in_backbone(concepts=3), in_backbone(concepts=[1]*5), in_backbone(concepts=['a'*1000]*5), in_backbone(concepts='abcd'), changed('head.weight', lambda v: v[:,:7].clone()),
    changed('head.weight', lambda v: v.flatten()), changed('head.weight', lambda v: v/0), changed('head.bias', lambda v: v[:2].clone()), lambda about,arrays: arrays.pop('head.weight'), in_backbone(head='own')])
@pytest.mark.parametrize('rich', ['linear'], indirect=True)
def test_damaged_token_head(rich, tmp_path, change):
    with pytest.raises(ValueError, match='^expected a tagger'): load_tagger(damaged(rich[1], tmp_path, change))

def test_names_can_be_left_out(world, laso, tmp_path):
    "What is written without names knows none; with concepts the report says which features were chosen."
    status,out,err = laso('teach', world[0]/'taught', '--size', '64', '--plain', '--no-names', '--out', tmp_path/'t')
    assert status == 0 and 'features: pooled' in out and 'known to the network' not in out, (out, err)
    assert load_tagger(tmp_path/'t').head.prior is None

class Evil:
    def __reduce__(self): return print, ('code ran',)

def test_pickle_is_refused(tmp_path, capsys):
    (tmp_path/'evil').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match='found something else'): load_tagger(tmp_path/'evil')
    (tmp_path/'deep').write_bytes((10**5).to_bytes(8, 'little') + b'['*10**5)
    with pytest.raises(ValueError, match='found something else'): load_tagger(tmp_path/'deep')
    assert 'code ran' not in capsys.readouterr().out
