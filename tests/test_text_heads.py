"""Heads of words, with tiny random models of open_clip: what a head says of a place is the cosine of two towers."""
import pytest, torch
import torch.nn.functional as F
open_clip = pytest.importorskip('open_clip')
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from laso.core import InputError
from laso.features import text_heads
from laso.features.backbones import Backbone
from laso.features.concepts import NoConcepts, tokens
from laso.features.text_heads import ImageTower, text_backbone, text_head

WORDS = ['cat', 'dog', 'old bicycle']
OWN = dict(patch_size=8, width=64, layers=1)

def model(size=32, **vision):
    torch.manual_seed(0)
    return CLIP(32, CLIPVisionCfg(image_size=size, **vision), CLIPTextCfg(width=32, heads=2, layers=1)).eval()

def with_words(net, size=32):
    head = text_head(net, open_clip.get_tokenizer('ViT-B-32'), WORDS)
    return Backbone(ImageTower(net.visual, 32), 'tiny', size=size, head=head)

@pytest.mark.parametrize('vision', [OWN, dict(OWN, final_ln_after_pool=True), dict(OWN, pool_type='avg')])
def test_own_transformers(vision):
    net,x = model(**vision),torch.randn(2, 3, 32, 32)
    both = with_words(net)
    assert both.blocks == dict(pooled=32, concepts=3) and both.concepts == WORDS
    with torch.no_grad():
        e = net.encode_text(open_clip.get_tokenizer('ViT-B-32')([f'a photo of a {o}.' for o in WORDS]))
        v = net.visual
        places = v.ln_post(v.transformer(v._embeds(x))[:,1:])@v.proj
        want = F.cosine_similarity(places[:,:,None], e, dim=-1)*net.logit_scale.exp()
        f = both.body.forward_features(x)
        assert torch.allclose(both.head(tokens(both.body, f), f), want, atol=1e-4)
        assert torch.allclose(both(x)[:,:32], net.encode_image(x, normalize=True), atol=1e-5)
        assert net.encode_image(x).shape == (2, 32)   # the model itself is as before
    assert torch.allclose(both(x)[:,32:], (want/2).softmax(-1).mean(1).sqrt(), atol=1e-4)

@pytest.mark.parametrize('name,pool,proj', [('test_resnet', '', 'linear'), ('test_vit', 'token', 'linear'), ('test_convnext', 'avg', None), ('test_vit', 'avg', 'mlp')])
def test_towers_of_timm(name, pool, proj):
    "The whole image is as in open_clip; where all is linear behind the mean, so is the mean of places."
    net = model(160, timm_model_name=name, timm_pool=pool, timm_proj=proj)
    both,x = with_words(net, 160),torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        whole,places = text_heads._of_timm(both.body.visual, x)
        assert torch.allclose(whole, net.encode_image(x), atol=1e-4) and places.shape[::2] == (2, 32)
        if name == 'test_resnet': assert torch.allclose(places.mean(1), whole, atol=1e-4)
    assert both.blocks == dict(pooled=32, concepts=3)

@pytest.mark.parametrize('vision', [dict(timm_model_name='test_vit', timm_pool='map', timm_proj=None), dict(OWN, attentional_pool=True), dict(layers=(1, 1, 1, 1), width=16)])
def test_attention_pools(vision):
    with pytest.raises(NoConcepts, match='which attends to all; choose another model'): ImageTower(model(160, **vision).visual, 32)

def test_names():
    assert text_heads._known('vit_base_patch32_clip_224.openai') == ('ViT-B-32', 'openai') == text_heads._known('ViT-B-32.openai')
    assert text_heads._known('ViT-B-32')[0] == text_heads._known('vit_base_patch32_clip_224')[0] == 'ViT-B-32'
    for name in '', 'ViT-B-32.nonsense', 'resnet18':
        with pytest.raises(InputError, match='expected the name of a model with a text tower, found'): text_backbone(name, WORDS)

def test_made(monkeypatch):
    "All that is fetched is asked for once, by open_clip's own loader."
    net,asked = model(**OWN),[]
    net.visual.image_mean = net.visual.image_std = None
    net.visual.preprocess_cfg = dict(size=(32, 32), mean=(.1, .2, .3), std=(1., 1., 1.))
    monkeypatch.setattr(open_clip, 'create_model_and_transforms', lambda *a, **k: asked.append(a) or (net, None, None))
    res = text_backbone('ViT-B-32.openai', WORDS, taus=(.5, 1.), device='cpu')
    assert asked == [('ViT-B-32', 'openai')] and res.mean == (.1, .2, .3) and res.size == 32
    assert res.blocks == {'pooled': 32, 'concepts': 3, 'concepts@1': 3} and res.name == 'ViT-B-32.openai'
    with pytest.raises(InputError, match='expected words'): text_backbone('ViT-B-32', [])
