"""Any model of timm: made with random weights, saved, loaded and applied, or refused in a sentence.

Ten families always; one model of each with `-m slow`."""
import re
from collections import defaultdict
import numpy as np
import psutil, pytest, timm, torch
from helpers import image, refused
from safetensors.torch import load_file, save_file
from laso.core import InputError
from laso.features.backbones import backbone_digest, create_backbone, distinct_state, load_weights, save_weights
from laso.features.concepts import NoConcepts, OwnHead, tokens
from laso.features.extract import extract_images
from laso.ops.kinds import set_ops
from laso.tag.tagger import FewShotTagger, load_tagger

# name, size: convolutions, shared tensors, vision transformers whose size is fixed, windows, mixers, mobile ones
TEN = [('coat_tiny', 64), ('test_resnet', 64), ('test_vit', 64), ('convnext_atto', 64), ('swin_tiny_patch4_window7_224', 64), ('mixer_s32_224', None),
       ('mobilenetv3_small_050', 64), ('xcit_nano_12_p16_224', 64), ('levit_128s', None), ('botnet26t_256', 128)]

def images(n=2): return [image(i, (40, 50)) for i in range(n)]

def same(a, b): assert np.array_equal(a, b, equal_nan=True)

def all_the_way(name, path, size=None):
    "Create, features, save, load."
    torch.manual_seed(0)
    backbone = create_backbone(name, size=size, weights='random', device='cpu')
    x = extract_images(backbone, images())
    assert x.shape == (2, backbone.width) and np.isfinite(x).all(), name
    save_weights(backbone.body, path/'w.safetensors')
    again = create_backbone(name, size=size, weights=path/'w.safetensors', device='cpu')
    assert backbone_digest(again) == backbone_digest(backbone)
    same(x, extract_images(again, images()))
    return backbone

@pytest.mark.parametrize('name,size', TEN)
def test_ten(tmp_path, name, size):
    "A tagger of it is written and read as well."
    backbone = all_the_way(name, tmp_path, size)
    some = images(4)
    tagger = FewShotTagger.teach(some, [['a'], ['b'], ['a', 'b'], []], backbone=backbone, ops=set_ops('analytic', backbone.width))
    again = load_tagger(tagger.export(tmp_path/'t'))
    assert np.allclose(tagger.predict_proba(some), again.predict_proba(some), atol=1e-5)
    assert backbone_digest(again.backbone.cpu()) == backbone_digest(backbone.cpu())

def test_shared_tensors(tmp_path):
    "In a file once; a file that holds them under every name, or under another of them, is read too."
    net,file = timm.create_model('coat_tiny', pretrained=False, num_classes=0),tmp_path/'w.safetensors'
    save_weights(net, file)
    state,saved = net.state_dict(),load_file(file)
    assert {*saved} < {*state} and sum(v.numel() for v in saved.values()) == sum(v.numel() for v in net.parameters())
    twin = next(k for k in state if k not in saved)
    first = next(k for k in saved if state[k].data_ptr() == state[twin].data_ptr())
    for sd in ({k: v.clone() for k,v in state.items()}, {twin if k == first else k: v for k,v in saved.items()}):
        save_file(sd, file)
        other = timm.create_model('coat_tiny', pretrained=False, num_classes=0)
        load_weights(other, file)
        assert backbone_digest(other) == backbone_digest(net)
    del sd[twin]
    save_file(sd, file)
    refused(lambda: load_weights(other, file), 'for every tensor of the model')

def test_limits(tmp_path):
    "Single numbers among the buffers may be infinite, as those of gemma4_vit that limit nothing; no other tensor, and NaN nowhere."
    net,file = torch.nn.Linear(2, 2).requires_grad_(False),tmp_path/'w'
    net.register_buffer('most', torch.tensor(torch.inf))
    save_weights(net, file)
    load_weights(net, file)
    assert net.most == torch.inf
    for part,value in ((net.most, torch.nan), (net.bias, torch.inf)):
        net.most.zero_()
        part.fill_(value)
        save_weights(net, file)
        refused(lambda: load_weights(net, file), 'finite weights')

def test_views_and_none_shared(tmp_path):
    "Parts of one tensor are written each by itself, and a model without sharing as it always was."
    net = torch.nn.BatchNorm1d(3)
    whole = torch.arange(6.)
    net.running_mean,net.running_var = whole[:3],whole[3:]
    save_weights(net, tmp_path/'w')
    assert load_file(tmp_path/'w')['running_var'].tolist() == [3, 4, 5] and [*distinct_state(net)] == [*net.state_dict()]
    net = timm.create_model('test_resnet', pretrained=False)
    save_weights(net, tmp_path/'new')
    save_file({k: v.contiguous().cpu() for k,v in net.state_dict().items()}, tmp_path/'old')
    assert (tmp_path/'new').read_bytes() == (tmp_path/'old').read_bytes()

# Concepts: of every network whose classifier can be asked about one place

# name, size, tokens: a plain and a distilled transformer, class attention, registers, channels last, convolutions behind the pool
HEADS = [('test_vit', 64, 16), ('deit_tiny_distilled_patch16_224', 32, 4), ('cait_xxs24_224', 32, 4), ('test_vit4', 64, 16), ('xcit_nano_12_p16_224', 32, 4),
         ('convnext_atto', 64, 4), ('mambaout_femto', 64, 4), ('mixer_s32_224', None, 49), ('mobilenetv3_small_050', 64, 4), ('levit_128s', None, 16)]

def with_concepts(name, size=None, n=None):
    "Features of both blocks, from one pass, those of concepts a histogram."
    torch.manual_seed(0)
    backbone = create_backbone(name, size=size, weights='random', concepts=True, device='cpu')
    body,x = backbone.body,torch.randn(2, 3, backbone.size, backbone.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): f,(pooled,h) = body.forward_features(x),backbone.outputs(x)
    t = tokens(body, f)
    assert n in (None, t.shape[1]) and [*backbone.blocks] == ['pooled', 'concepts'] and h.shape == (2, backbone.blocks['concepts'])
    assert torch.allclose(h.norm(dim=1), torch.ones(2), atol=1e-4) and (h >= 0).all() and len(backbone.concepts or h[0]) == len(h[0])
    with torch.no_grad(): assert torch.allclose(pooled, body.forward_head(f, pre_logits=True), atol=1e-5)
    return body,x,t,f

@pytest.mark.parametrize('name,size,n', HEADS)
def test_concepts(name, size, n):
    body,x,t,f = with_concepts(name, size, n)
    with torch.no_grad():
        z,whole = OwnHead(body)(t, f),body.forward_head(f)
        if name in ('mixer_s32_224', 'levit_128s'): assert torch.allclose(z.mean(1), whole, atol=1e-4)   # linear behind the mean
        elif name == 'deit_tiny_distilled_patch16_224': assert torch.allclose(z[1,2], (body.head(f[1,4])+body.head_dist(f[1,4]))/2, atol=1e-4)
        elif 'vit' in name or 'cait' in name or 'xcit' in name: assert torch.allclose(z, body.head(body.fc_norm(t) if hasattr(body, 'fc_norm') else t), atol=1e-4)
        else:   # a map of equal places says what the place says
            one = (t[:,1,:,None,None] if f.shape[1] == t.shape[2] else t[:,1,None,None,:]).expand(f.shape)
            assert torch.allclose(z[:,1], body.forward_head(one), atol=1e-4)

NONE = [('vit_tiny_patch16_dinov3_qkvb', 32, 'without one'), ('fastvit_mci0', 64, 'leads to texts'), ('coat_tiny', 64, 'one feature map')]

@pytest.mark.parametrize('name,size,why', NONE)
def test_no_concepts(name, size, why):
    "Said in a sentence where they are asked for, and left out where they need not be."
    with pytest.raises(NoConcepts, match=why): create_backbone(name, size=size, weights='random', concepts=True)
    assert [*create_backbone(name, size=size, weights='random', concepts=None).blocks] == ['pooled']

@pytest.mark.parametrize('name,kwargs', [('test_vit', dict(global_pool='map')), ('resnet50_clip', dict(num_classes=10))])
def test_attention_pools(name, kwargs):
    with torch.device('meta'): net = timm.create_model(name, **kwargs)
    refused(lambda: OwnHead(net), 'attends to all tokens at once')

# What can't be made is said

@pytest.mark.parametrize('name,kwargs,parts', [
    ('halonet_h1', dict(size=96, weights='random'), ['an input size that halonet_h1 takes, found 96 (AssertionError)']),
    ('test_vit', dict(size=100, weights='random'), ['an input size that test_vit takes, found 100']),
    ('resnet18', dict(size=100_000), ['at most 1024 pixels, found 100000']), ('resnet18', dict(size=1025, weights='random'), ['found 1025']),
    ('resnet18', dict(size=10**30, weights='random'), ['at most 1024']), ('resnet18', dict(size=-1), ['at least 8 pixels, found -1']),
    ('resnet18.nonsense', dict(), ['a set of weights of resnet18, found nonsense; known are a1_in1k, ']), ('resnet18.nonsense', dict(weights='random'), ['found nonsense']),
    ('hf_hub:timm/resnet18.a1_in1k', dict(), ['a place', 'give resnet18.a1_in1k']), ('hf-hub:someone/net', dict(weights='random'), ['a place', 'weights=FILE']),
    ('local-dir:/tmp', dict(), ['a place']), ('timm/resnet18', dict(), ['give resnet18']), ('', dict(), ["found ''"]), ('resnet-50', dict(), ['did you mean resnet50']),
    ('halonet_h1', dict(), ['found halonet_h1, for which it has none'])])
def test_refused(name, kwargs, parts):
    text = refused(lambda: create_backbone(name, **kwargs), *parts)
    assert 'connect to the network' not in text

def test_former_names_are_known():
    "timm knows some models by older names; their sets of weights are not listed."
    with pytest.warns(UserWarning, match='deprecated'): backbone = create_backbone('vit_tiny_patch16_224_in21k', weights='random', size=32)
    assert (backbone.width, backbone.size) == (192, 32)

def test_memory_is_asked_for_last(monkeypatch):
    "Weights, and tensors between images and features, that do not fit are refused before anything is made."
    free = psutil.virtual_memory()
    made = []
    monkeypatch.setattr(torch, 'randn', lambda *a, **k: made.append(a))
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: free._replace(available=10**9))
    text = refused(lambda: create_backbone('vit_giant_patch14_224', weights='random'), 'found vit_giant_patch14_224, which needs 4.')
    assert '1.0 GB' in text
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: free._replace(available=15*10**7))
    refused(lambda: create_backbone('resnet18', weights='random', size=1024), 'resnet18, which needs 0.2 GB')
    assert not made

# One model of every family

def smallest(classes=False):
    "The model of each module of timm that has the fewest parameters, of those with a classifier where there are some."
    res = defaultdict(list)
    for name in timm.list_models():
        with torch.device('meta'): net = timm.create_model(name, pretrained=False, **({} if classes else dict(num_classes=0)))
        res[type(net).__module__].append((classes and not net.num_classes, sum(v.numel() for v in net.parameters()), name))
    return {k: min(v)[2] for k,v in res.items()}

@pytest.mark.slow
def test_every_family(tmp_path):
    works,no = [],{}
    for family,name in smallest().items():
        try: all_the_way(name, tmp_path); works.append(name)
        except InputError as e:
            assert re.fullmatch(r'expected .*, found .*; .*', str(e)) and str(e).isprintable(), (name, e)
            no[name] = f'refused: {e}'
        except Exception as e: no[name] = f'TRACEBACK {type(e).__name__} {e}'
        print(family, name, no.get(name, 'works'), flush=True)
    print(f'{len(works)} families work, {len(no)} do not')
    assert len(works)+len(no) >= 80 and not [o for o in no.values() if o.startswith('TRACEBACK')]

@pytest.mark.slow
def test_concepts_of_every_family():
    works,no = [],{}
    for family,name in smallest(classes=True).items():
        try: with_concepts(name); works.append(name)
        except NoConcepts as e:
            assert re.fullmatch(r'expected .*, found .*; .*', str(e)), (name, e)
            no[name] = f'refused: {e}'
        print(family, name, no.get(name, 'works'), flush=True)
    print(f'{len(works)} families have concepts, {len(no)} do not')
    assert len(works) > 65 and len(no) < 12
