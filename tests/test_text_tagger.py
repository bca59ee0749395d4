"Taggers of networks with a text tower: a tiny random one that understands colours, since its texts are set to what images of one colour look like."
import json, zlib
import numpy as np, pytest, torch
import torch.nn.functional as F
open_clip = pytest.importorskip('open_clip')
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner
from laso import cli
from laso.core import InputError
from laso.features.concepts import tokens
from laso.features.text_heads import ImageTower
from laso.tag.start import network_for
from laso.tag.tagger import FewShotTagger, load_tagger

COLOURS = dict(red=(220, 30, 30), green=(30, 200, 30), blue=(30, 30, 220), yellow=(230, 220, 40), lilac=(200, 120, 210))
TAUGHT = ['blue', 'green', 'red', 'yellow']
CONFIG = dict(embed_dim=32, vision_cfg=dict(image_size=32, patch_size=8, width=64, layers=1), text_cfg=dict(width=32, heads=2, layers=1))

def image(colours, rng):
    "Grey noise with a square of each colour."
    a = np.clip(rng.normal(110, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
    for c,k in zip(colours, rng.permutation(4)): a[16*(k//2):16*(k//2)+16,16*(k%2):16*(k%2)+16] = COLOURS[c]
    return Image.fromarray(a)

def images(n, seed, names=TAUGHT):
    rng = np.random.default_rng(seed)
    labels = [[c for c in names if rng.random() < .35] for _ in range(n)]
    return [image(l, rng) for l in labels],labels

class Tiny:
    "Stands for open_clip's loader: one model, whose texts are vectors of colours."
    def __init__(self):
        torch.manual_seed(0)
        self.net,self.asked,self.turned = open_clip.CLIP(**{k: dict(v) if isinstance(v, dict) else v for k,v in CONFIG.items()}).eval(),[],0
        self.n_texts = 0
        self.net.logit_scale.data.fill_(np.log(100))
        body = ImageTower(self.net.visual, 32)
        x = torch.stack([(torch.tensor(c)/127.5-1)[:,None,None].expand(3, 32, 32) for c in [*COLOURS.values(), (110, 110, 110)]])
        with torch.no_grad(): v = tokens(body, body.forward_features(x)).mean(1)
        self.vectors = dict(zip(COLOURS, F.normalize(v-v.mean(0), dim=-1)))
        self.net.encode_text = self.encode

    def encode(self, texts, normalize):
        self.n_texts += len(texts)
        return torch.stack([self.vector(t[len('a photo of a '):-1]) for t in texts])

    def vector(self, word):
        if word in self.vectors: return self.vectors[word].roll(self.turned)
        return F.normalize(torch.randn(32, generator=torch.Generator().manual_seed(zlib.crc32(word.encode()))), dim=-1)

    def load(self, *args, **kwargs):
        self.asked.append(args)
        if self.turned is None: raise OSError('no network')
        return self.net,None,None

@pytest.fixture
def tiny(monkeypatch, tmp_path_factory):
    t = Tiny()
    cfg = dict(size=32, mean=(.5,)*3, std=(.5,)*3)
    known = dict(list_pretrained=lambda: [('tiny', 'made'), ('ViT-bigG-14', 'made')], get_pretrained_cfg=lambda model, tag: dict(hf_hub='timm/vit_base_patch32_clip_224.openai/') if model == 'tiny' else {},
                 create_model_and_transforms=t.load, get_tokenizer=lambda model: list, get_model_preprocess_cfg=lambda net: cfg)
    real = open_clip.get_model_config
    known['get_model_config'] = lambda model: json.loads(json.dumps(CONFIG)) if model == 'tiny' else real(model)
    for k,f in known.items(): monkeypatch.setattr(open_clip, k, f)
    monkeypatch.setenv('LASO_CACHE', str(tmp_path_factory.mktemp('cache')))
    return t

def teach(n=1, names=True, **kwargs):
    rng = np.random.default_rng(7)
    shown = [[c] for c in TAUGHT]*n
    return FewShotTagger.teach([image(l, rng) for l in shown], shown, backbone='tiny', names=names, ops=None, **kwargs)

def quality(tagger, names=TAUGHT):
    new,labels = images(60, 3, names)
    p = tagger.predict_proba(new)
    return np.mean([average_precision_score([t in l for l in labels], p[:,tagger.tags.index(t)]) for t in names])

def test_names_are_a_start(tiny):
    "With one example of each tag, names find it better; the tags are words of their own, before ImageNet's."
    with_names,without = teach(),teach(names=False)
    assert tiny.n_texts == 1000+2*4   # ImageNet's are kept
    assert tiny.asked == [('tiny', 'made')]*2 and with_names.backbone.name == 'tiny.made'
    assert with_names.backbone.concepts[:4] == TAUGHT and len(with_names.backbone.concepts) == 1004
    assert [c[0] for c in with_names.head.prior.columns] == [0, 1, 2, 3] and 'names of 4 tags known' in with_names.report
    a,b = quality(with_names),quality(without)
    assert a > .9 and a > b+.15, (a, b)

def test_no_example(tiny, tmp_path):
    t = FewShotTagger.from_names(TAUGHT[::-1], 'tiny')
    assert t.tags == TAUGHT and t.report == '4 tags; no examples: names alone' and t.examples == dict.fromkeys(TAUGHT, 0)
    assert quality(t) > .9
    again = load_tagger(t.export(tmp_path/'t'))
    new,labels = images(20, 5)
    assert np.allclose(again.predict_proba(new), t.predict_proba(new), atol=1e-5) and again.report == t.report
    again.add(new, labels)
    assert quality(again) > .9 and '4 tags from 20 images' in again.report

def test_words_are_in_the_file(tiny, tmp_path):
    "Nothing is fetched to read a tagger."
    t = teach()
    file,asked = t.export(tmp_path/'t'),len(tiny.asked)
    tiny.turned = None
    again,(new,_) = load_tagger(file),images(10, 5)
    assert len(tiny.asked) == asked and np.allclose(again.predict_proba(new), t.predict_proba(new), atol=1e-5)
    assert again.report == t.report and again.backbone.concepts == t.backbone.concepts and again.head.prior.columns == t.head.prior.columns

@pytest.mark.parametrize('turned,said', [(0, ''), (None, 'no words for lilac: expected to fetch tiny.made and its words'), (5, 'no words for lilac: expected the words of tiny.made as')])
def test_a_further_tag(tiny, tmp_path, capsys, turned, said):
    "Its word comes from the text tower, if that can be had and is the same; otherwise nothing is known of its name, and the others stay."
    t = load_tagger(teach().export(tmp_path/'t'))
    before,tiny.turned = t.backbone,turned
    t.add([image(['lilac'], np.random.default_rng(9))], [['lilac']])
    assert t.tags == sorted([*TAUGHT, 'lilac']) and t.backbone.width == before.width
    new = np.flatnonzero([a != b for a,b in zip(t.backbone.concepts, before.concepts)])
    assert said in capsys.readouterr().err and len(new) == (turned == 0) and set(new) <= {*t.head.prior.columns[t.tags.index('lilac')]}
    assert f'names of {4+(turned == 0)} tags known' in t.report and quality(t) > .85
    if turned == 0: assert quality(t, ['lilac']) > .9 and new[0] >= 4 and before.concepts[:4] == TAUGHT
    again = load_tagger(t.export(tmp_path/'again'))   # and so it is written
    assert again.backbone.concepts == t.backbone.concepts and again.report == t.report

def in_backbone(**kwargs): return lambda about,arrays: about['backbone'].update(kwargs)
def changed(k, f): return lambda about,arrays: arrays.update({k: f(arrays[k])})

@pytest.mark.parametrize('change', [in_backbone(name='ViT-bigG-14'), in_backbone(name='nothing'), in_backbone(name='hf-hub:a/b'), in_backbone(name='local-dir:/tmp'), in_backbone(name='../tiny'), in_backbone(name=['tiny']), in_backbone(size=64),
    in_backbone(texts=False), in_backbone(texts='yes'), in_backbone(texts=[1]), in_backbone(head='own'), in_backbone(concepts=['a']), in_backbone(concepts=[1]*1004), in_backbone(concepts=['a'*1000]*1004), in_backbone(name='resnet18'),
    changed('backbone.visual.proj', lambda v: v[:3].clone()), changed('backbone.visual.proj', lambda v: v/0), changed('head.weight', lambda v: v[:,:7].clone()), changed('head.weight', lambda v: v[:9].clone()),
    lambda about,arrays: arrays.pop('backbone.visual.proj'), lambda about,arrays: arrays.update({'backbone.visual.more': torch.ones(2)}), lambda about,arrays: arrays.pop('head.weight')])
def test_hostile_files(file, tmp_path, monkeypatch, tiny, change):
    with safe_open(file, 'pt') as f: about,arrays = json.loads(f.metadata()['laso']),{k: f.get_tensor(k) for k in f.keys()}
    change(about, arrays)
    save_file(arrays, tmp_path/'bad', dict(laso=json.dumps(about)))
    asked = len(tiny.asked)
    with pytest.raises(InputError, match='^expected a tagger in .*, found something else'): load_tagger(tmp_path/'bad')
    assert len(tiny.asked) == asked

@pytest.fixture(scope='module')
def file(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        tiny.__wrapped__(m, tmp_path_factory)
        return teach().export(tmp_path_factory.mktemp('t')/'t')

def test_sentences(tiny, file, tmp_path, monkeypatch):
    "What can't be had is said in one."
    for some in dict(size=64), dict(weights=str(tmp_path/'w')):
        with pytest.raises(InputError, match='^expected tiny as it comes, .* leave them out$'): network_for('tiny', TAUGHT, **some)
    tiny.turned = None
    with pytest.raises(InputError, match='^expected to fetch tiny and its words, found no way to them .* connect to the network$'): teach()
    monkeypatch.setitem(__import__('sys').modules, 'open_clip', None)
    with pytest.raises(InputError, match=r"^expected the package open_clip_torch .* pip install 'laso\[clip\]'$"): load_tagger(file)
    with pytest.raises(InputError, match=r"^expected the name of a timm model, found 'tiny'.* models of open_clip need pip install 'laso\[clip\]'$"): teach()

def test_names_in_timm(tiny):
    "A set of weights of timm brings its text tower, but not with another size or own weights."
    assert network_for('vit_base_patch32_clip_224.openai', TAUGHT).concepts[:4] == TAUGHT and tiny.asked == [('tiny', 'made')]
    assert network_for('test_efficientnet.r160_in1k', TAUGHT, weights='random').concepts[:1] == ['tench, Tinca tinca']

def test_commands(tiny, tmp_path):
    run,rng = CliRunner().invoke,np.random.default_rng(1)
    for c in TAUGHT:
        (tmp_path/'taught'/c).mkdir(parents=True)
        image([c]*4, rng).save(tmp_path/'taught'/c/'a.png')
    r = run(cli.app, ['teach', str(tmp_path/'taught'), '--backbone', 'tiny', '--out', str(tmp_path/'a')])
    assert r.exit_code == 0 and 'names of 4 tags known to the network' in r.output, r.output
    r = run(cli.app, ['teach', '--tags', 'red, blue', '--backbone', 'tiny', '--out', str(tmp_path/'b')])
    assert r.exit_code == 0 and '2 tags; no examples: names alone' in r.output, r.output
    r = run(cli.app, ['tag', str(tmp_path/'b'), str(tmp_path/'taught')])
    assert r.exit_code == 0 and [l.split(': ')[-1].split()[0] for l in r.stdout.splitlines()] == ['blue', 'no', 'red', 'no'], r.output
    for args,said in ((['teach'], 'found neither'), (['teach', str(tmp_path/'taught'), '--tags', 'red'], 'alone, found images or a tagger'), (['teach', '--tags', ',', '--backbone', 'tiny', '--out', str(tmp_path/'c')], 'found none')):
        assert said in run(cli.app, args).exception.sentence
