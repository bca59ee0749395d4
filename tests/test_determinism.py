"What changes nothing: another process, the number of workers, the order of files on disk, the batch size of inference."
import json, shutil
import numpy as np
import pytest, torch
from forked import DRAWN, Server, content, files, needs_fork
from laso.features.backbones import create_backbone
from laso.train.finetune import classifier_dls, finetune
from laso.store import digest
from laso.data.folder import read_folder
from laso.features.extract import extract
from laso.data.scenes import make_scenes

def same(ref, out): assert {k: content(p) for k,p in files(out).items()} == {k: content(p) for k,p in ref.want.items()}

@pytest.fixture(scope='module')
def other(world):
    "A server of another interpreter, which has another order of sets of names."
    res = Server(world, 'other.txt')
    yield res
    res.close()

@needs_fork
@pytest.mark.parametrize('stage', ['bench', 'teach'])
def test_same_seed_same_results(stage, reference, other, tmp_path):
    "In another process, with an empty cache: fine-tuning, operators, training from end to end and few-shot heads."
    ref,out = reference(stage),tmp_path/'out'
    assert other.run(*ref.args(out), cache=tmp_path/'cache', before='import torch; torch.manual_seed(7)')[0] == 0
    ref.check_end(tmp_path/'cache', out, {})

BACKWARDS = """
import os
class Scan:
    def __init__(self, items): self.items = iter(items)
    def __iter__(self): return self
    def __next__(self): return next(self.items)
    def __enter__(self): return self
    def __exit__(self, *args): pass
    def close(self): pass
listdir,scandir = os.listdir,os.scandir
os.listdir = lambda *args: sorted(listdir(*args), reverse=True)
os.scandir = lambda *args: Scan(sorted(scandir(*args), key=lambda o: o.name, reverse=True))
"""

@needs_fork
@pytest.mark.parametrize('stage', ['bench', 'teach'])
def test_order_of_files(stage, reference, server, tmp_path):
    "As if the disk listed every folder from the end."
    ref = reference(stage)
    assert server.run(*ref.args(tmp_path/'out'), cache=tmp_path/'cache', before=BACKWARDS)[0] == 0
    same(ref, tmp_path/'out')

@needs_fork
def test_same_figures(reference, server, other, tmp_path):
    "All of them, in two interpreters; the runs above leave most of them empty."
    ref = reference('bench')
    for name,s in dict(one=server, two=other).items():
        shutil.copytree(ref.home/'cache', tmp_path/f'{name}-cache')
        assert s.run(*ref.args(tmp_path/name), cache=tmp_path/f'{name}-cache', before=DRAWN)[0] == 0
    one,two = ({k: p.read_bytes() for k,p in files(tmp_path/o).items() if k.endswith('.png')} for o in ('one', 'two'))
    assert one == two and len(one) == 5
    assert [k for k,b in one.items() if b == ref.want[k].read_bytes()] == ['gallery.png']

@pytest.fixture
def images(world, tmp_path, monkeypatch):
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    return read_folder(world/'data'),create_backbone('test_efficientnet', size=32, weights=world/'weights.safetensors')

def test_workers_of_fine_tuning(images):
    data,net = images
    alone,helped = (finetune(net, data, epochs=2, bs=8, num_workers=n) for n in (0, 2))
    assert digest(alone.model.state_dict()) == digest(helped.model.state_dict())
    assert alone.recorder.values == helped.recorder.values

def test_flips_are_drawn_anew(images):
    "Every pass its own, and about half of the images: what depends on nothing else still varies."
    data,_ = images
    torch.manual_seed(0)
    dl = classifier_dls(data, 32, 8).train
    dl.shuffle,dl.drop_last = False,False
    one,two = (torch.cat([b[0] for b in dl]) for _ in range(2))
    changed = (one != two).flatten(1).any(1).float().mean()
    assert .2 < changed < .8

def features(data, net, tmp_path, monkeypatch, **kwargs):
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'-'.join(map(str, kwargs.items()))))
    return extract(data, net, **kwargs).x.numpy()

def test_workers_of_extraction(images, tmp_path, monkeypatch):
    alone,helped = (features(*images, tmp_path, monkeypatch, bs=8, num_workers=n) for n in (0, 2))
    np.testing.assert_array_equal(alone, helped)

def test_threads_that_draw_scenes(tmp_path):
    for n in 1, 3: make_scenes(tmp_path/str(n), n_train=9, n_valid=3, size=32, n_workers=n)
    one,three = ({k: p.read_bytes() for k,p in files(tmp_path/n).items()} for n in '13')
    assert one == three and len(one) == 15

def test_batch_size_of_extraction(images, tmp_path, monkeypatch):
    many,some,one = (features(*images, tmp_path, monkeypatch, bs=n) for n in (16, 7, 1))
    for x in some, one: np.testing.assert_allclose(x, many, rtol=1e-4, atol=1e-5)

@needs_fork
def test_batch_size_of_a_benchmark(reference, server, tmp_path):
    "Scores that come straight from features, with images in batches of 3; learned operators may magnify the rounding."
    args = [*map(str, reference('bench').args(tmp_path))][:-2]
    args += ['--frozen', '--end-to-end', 0, '--n-pairs', 400]   # of few pairs a single one would count for more than the bound
    for n in 3, 16: assert server.run(*args, '--out', tmp_path/str(n), cache=tmp_path/f'cache{n}',
                                      before=f'extract.default_bs = lambda backbone: {n}')[0] == 0
    a,b = (json.loads((tmp_path/n/'results.json').read_text()) for n in ('3', '16'))
    assert a['untouched'] == pytest.approx(b['untouched'], abs=1e-4)
    for part in 'operators', 'retrieval', 'fewshot', 'expressions':
        for x,y in zip(a[part], b[part], strict=True):
            learned = x.get('operator') == 'learned' or x.get('method', '').startswith('laso')
            assert x == pytest.approx(y, abs=.02 if learned else 1e-4)
