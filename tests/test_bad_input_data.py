"What a user can get wrong with a folder of images, a table of features or a backbone: one plain sentence each."
import csv, os
from pathlib import Path
import numpy as np
import pytest, torch
from PIL import Image
from laso.features.backbones import Backbone, create_backbone
from laso.train.finetune import finetuned
from laso.core import InputError
from laso.store import cache_dir
from laso.data.folder import check_images, images_folder, read_folder
from laso.features.extract import extract, extract_images
from laso.features.table import FeatureTable, load_features

SHARED = Path(__file__).resolve().parent.parent.parent/'shared'/'data'
COLS = ('fname', 'labels', 'is_valid')
GOOD = [('a.jpg', 'dog cat', 'False'), ('b.jpg', 'cat', 'False'), ('c.jpg', 'cat dog', 'True')]

def jpeg(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(list(file.name.encode())).integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(file)

@pytest.fixture
def folder(tmp_path):
    "`folder(rows)`: write a folder; `cat` is novel unless `novel` says otherwise."
    def make(rows=GOOD, header=COLS, novel='cat', classes=None, encoding='utf-8'):
        for o in 'abc': jpeg(tmp_path/'images'/f'{o}.jpg')
        with (tmp_path/'labels.csv').open('w', newline='', encoding=encoding) as f:
            csv.writer(f).writerows([header, *rows])
        for name,text in ('novel', novel), ('classes', classes):
            if text is not None: (tmp_path/f'{name}.txt').write_text(text.replace(' ', '\n'), encoding=encoding)
        return tmp_path
    return make

@pytest.fixture
def refused():
    "`refused(f, *parts)`: `f` raises one plain sentence with all of the parts."
    def check(f, *parts):
        with pytest.raises(InputError) as e: f()
        text = str(e.value)
        assert text.startswith('expected ') and '\n' not in text and ', found ' in text, text
        for o in parts: assert o in text, text
    return check

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    return cache_dir()

class Means(torch.nn.Module):
    "A backbone of no weight: the mean of each colour."
    def __init__(self, calls=10**9): super().__init__(); self.p,self.calls = torch.nn.Parameter(torch.zeros(1)),calls
    def forward(self, x):
        self.calls -= 1
        if self.calls < 0: raise RuntimeError('cut off')
        return x.mean((2, 3)) + 0*self.p

def means(calls=10**9): return Backbone(Means(calls), 'means', size=8)

def test_good(folder):
    data = read_folder(folder(), n_shot=2)
    assert data.fnames == ['a.jpg', 'b.jpg', 'c.jpg'] and data.vocab == ['cat', 'dog']
    assert data.labels.tolist() == [[1, 1], [1, 0], [1, 1]] and data.is_valid.tolist() == [False, False, True]
    assert data.novel_vocab == ['cat'] and data.base_vocab == ['dog']

def test_byte_order_mark(folder):
    data = read_folder(folder(classes='dog cat', encoding='utf-8-sig'), n_shot=2)
    assert data.vocab == ['dog', 'cat'] and data.novel_vocab == ['cat'] and data.fnames[0] == 'a.jpg'

def test_empty_labels_and_sub_folders(folder):
    path = folder([*GOOD, ('sub/d.jpg', '', 'False')])
    jpeg(path/'images'/'sub'/'d.jpg')
    data = read_folder(path, n_shot=2)
    assert data.labels[3].tolist() == [0, 0] and data.open(3).size == (30, 40)

def test_no_folder(tmp_path, refused):
    refused(lambda: read_folder(tmp_path/'nowhere'), 'found no folder', 'check the path')
    refused(lambda: read_folder(tmp_path), 'labels.csv', 'found none')

@pytest.mark.parametrize('rows,header,parts', [
    (GOOD, ('file', 'labels', 'is_valid'), ['found file,labels,is_valid', 'add fname']),
    ([], ('fname', 'labels'), ['only its header']),
    ([], (), ['found nothing', 'add fname, labels']),
    ([*GOOD, ('a.jpg',)], COLS, ['3 fields', 'line 5']),
    ([*GOOD, ('a.jpg', 'dog', 'True', 'cat')], COLS, ['3 fields', 'line 5']),
    ([*GOOD, GOOD[0], GOOD[2]], COLS, ['more than one line for a.jpg, c.jpg (2 in all)']),
    ([*GOOD, ('x.jpg', '', 'True'), ('y.jpg', '', 'True')], COLS, ['2 of 5 absent: x.jpg, y.jpg']),
    ([(f, l, 'yes') for f,l,_ in GOOD], COLS, ["'yes' for a.jpg", '3 in all']),
    ([(f, '', v) for f,_,v in GOOD], COLS, ['expected labels']),
])
def test_labels_csv(folder, refused, rows, header, parts):
    refused(lambda: read_folder(folder(rows, header), n_shot=2), *parts)

@pytest.mark.parametrize('columns', [dict(labels='fname'), dict(fname='labels'), dict(fname='is_valid', labels='is_valid'), dict(is_valid='fname')])
def test_a_column_for_two(folder, refused, columns):
    refused(lambda: read_folder(folder(), columns=columns), 'a column of its own', '--file-column and --label-column')

@pytest.mark.parametrize('split', [True, False])
def test_names_that_nobody_shows_for_certain(folder, refused, capsys, split):
    "Are no classes, with or without a split and a column `known`; they are named once."
    rows = [('a.jpg', 'dog ?bird', 'False'), ('b.jpg', 'cat ?dog ?fish', 'False'), ('c.jpg', '?bird cat dog', 'True')]
    header = COLS if split else ('fname', 'labels', 'known')
    data = read_folder(folder(rows if split else [(f, l, '') for f,l,_ in rows], header), n_shot=1)
    assert data.vocab == ['cat', 'dog'] and data.labels.nan_to_num(9).tolist() == [[0, 1], [1, 9], [1, 1]]
    assert 'left out names of labels.csv that no image shows for certain: ?bird, ?fish (2 in all)' in capsys.readouterr().err
    refused(lambda: read_folder(folder([(f, '?bird', v) for f,_,v in rows]), n_shot=1), 'expected labels in labels.csv, found none')
    refused(lambda: read_folder(folder([(f, '?bird') for f,*_ in rows], COLS[:2]), n_shot=1), 'expected labels in labels.csv, found none')

def test_images_are_where_most_of_them_are(folder, refused):
    "Beside the table if `images` lacks some that are there, else in `images`."
    path = folder([(f'{i}.jpg', 'dog', 'False') for i in range(150)])
    for i in range(150):
        jpeg(path/f'{i}.jpg')
        if i < 149: jpeg(path/'images'/f'{i}.jpg')
    assert images_folder(path, [f'{i}.jpg' for i in range(150)]) == '.'
    assert images_folder(path, [f'{i}.jpg' for i in range(149)]) == images_folder(path, ['x.jpg']) == images_folder(path, []) == 'images'
    assert images_folder(path, ['images/0.jpg', '0.jpg']) == '.'

def test_no_text(folder, refused):
    path = folder()
    (path/'labels.csv').write_bytes(b'fname,labels\na.jpg,\xe9\xff\n')
    refused(lambda: read_folder(path), 'UTF-8')

@pytest.mark.parametrize('fname', ['/etc/hosts', '../labels.csv', 'd/../../a.jpg', '..\\labels.csv', 'C:\\a.jpg', ''])
def test_leads_out(folder, refused, fname):
    path = folder([*GOOD, (fname, 'dog', 'False')])
    refused(lambda: read_folder(path, n_shot=2), 'inside the folder images', repr(fname))

@pytest.mark.parametrize('files,parts', [
    (dict(novel='cat cow pig'), ['no image of cow, pig (2 in all)']),
    (dict(classes='dog pig'), ['found cat', 'classes.txt']),
    (dict(classes='dog cat pig'), ['every base class', 'found none for pig']),
    (dict(classes='dog cat dog'), ['more than one line for dog']),
    (dict(classes='dog cat stop\tsign'), ["'stop\\tsign'"]),
    (dict(novel='cat dog'), ['no base class']),
    (dict(novel=''), ['no novel class']),
])
def test_classes(folder, refused, files, parts): refused(lambda: read_folder(folder(**files), n_shot=1), *parts)

def test_too_few(folder, refused):
    refused(lambda: read_folder(folder(), n_shot=3), 'at least 3 training images', 'found cat 2')
    refused(lambda: read_folder(folder([*GOOD[:2], ('c.jpg', 'dog', 'True')]), n_shot=2),
            'validation image of every novel class', 'cat')
    refused(lambda: read_folder(folder([('a.jpg', 'cat', 'False'), ('b.jpg', 'cat', 'False'), GOOD[2]]), n_shot=2),
            'every base class', 'dog')
    for v,what in ('True', 'training'), ('False', 'validation'):
        refused(lambda: read_folder(folder([(f, l, v) for f,l,_ in GOOD]), n_shot=1), f'expected {what} images')

def test_nothing_to_draw_from(folder, refused):
    path = folder(novel=None)
    refused(lambda: read_folder(path, n_shot=5), 'to draw the novel', 'found 0 of 2')

def broken_folder(folder):
    path = folder()
    whole = (path/'images'/'a.jpg').read_bytes()
    (path/'images'/'a.jpg').write_bytes(whole[:len(whole)//2])
    (path/'images'/'c.jpg').write_bytes(b'no image')
    return read_folder(path, n_shot=2)

def test_undecodable(folder, refused, cache):
    data = broken_folder(folder)
    for f in (lambda: check_images(data), lambda: extract(data, means()), lambda: finetuned(means(), data)):
        refused(f, "2 of 3 that can't: a.jpg, c.jpg (2 in all)")
    assert not list(cache.iterdir())

def test_cut_off(folder, cache):
    data = read_folder(folder(), n_shot=2)
    with pytest.raises(RuntimeError, match='cut off'): extract(data, means(calls=3), bs=1, num_workers=0)
    assert not list(cache.iterdir())
    assert extract(data, means(), bs=1, num_workers=0).x.shape == (3, 3)
    assert len(list(cache.iterdir())) == 1

def test_stale(folder, cache):
    "Another image under the same name and date is computed anew; another label is not, and shows at once."
    path = folder()
    first = extract(read_folder(path, n_shot=2), means(), num_workers=0)
    file = path/'images'/'a.jpg'
    when = os.stat(file)
    Image.new('RGB', (30, 40), 'red').save(file)
    os.utime(file, ns=(when.st_atime_ns, when.st_mtime_ns))
    second = extract(read_folder(path, n_shot=2), means(), num_workers=0)
    assert (first.x[0] != second.x[0]).any() and (first.x[1:] == second.x[1:]).all()
    assert torch.allclose(second.x[0], torch.tensor([1., -1, -1]), atol=.02)
    again = read_folder(folder([GOOD[0], ('b.jpg', 'cat dog', 'False'), GOOD[2]]), n_shot=2)
    third = extract(again, means(calls=1), num_workers=0)
    assert third.labels[1].tolist() == [1, 1]

@pytest.mark.parametrize('x,parts', [
    (np.zeros((3, 4)), ['float32', 'float64']),
    (np.zeros((2, 4), np.float32), ['(3, d)', '(2, 4)']),
    (np.zeros(3, np.float32), ['(3,)']),
    (np.array([[0, 1], [np.inf, 0], [np.nan, 0]], np.float32), ['found others in row 1, 2 (2 in all)']),
])
def test_features(tmp_path, refused, x, parts):
    rest = (torch.eye(3), ['a', 'b', 'c'], torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]))
    refused(lambda: FeatureTable(x, *rest), *parts)
    FeatureTable(torch.eye(3, 4), *rest).save(tmp_path/'t')
    np.save(tmp_path/'t'/'features.npy', x)
    refused(lambda: load_features(tmp_path/'t'), *parts)

def test_no_pickle(tmp_path, refused):
    rest = (torch.eye(3), ['a', 'b', 'c'], torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]))
    FeatureTable(torch.eye(3, 4), *rest).save(tmp_path/'t')
    np.save(tmp_path/'t'/'features.npy', np.array([print], dtype=object), allow_pickle=True)
    refused(lambda: load_features(tmp_path/'t'), 'array of numbers')
    torch.save(dict(a=print), tmp_path/'w.safetensors')
    refused(lambda: create_backbone(weights=tmp_path/'w.safetensors'), 'expected weights as safetensors')

@pytest.mark.parametrize('text', ['', '[]', '{"labels": [[0]]}', 'no json'])
def test_features_json(tmp_path, refused, text):
    rest = (torch.eye(3), ['a', 'b', 'c'], torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]))
    FeatureTable(torch.eye(3, 4), *rest).save(tmp_path/'t')
    (tmp_path/'t'/'features.json').write_text(text)
    refused(lambda: load_features(tmp_path/'t'), 'labels of the features')

def test_backbones(refused):
    refused(lambda: create_backbone('efficientnet_b99'), 'did you mean')
    refused(lambda: create_backbone(weights='nowhere.safetensors'), 'found no file')
    refused(lambda: create_backbone('vit_tiny_patch16_224', size=2, weights='random'), 'size')

@pytest.mark.skipif(not SHARED.is_dir(), reason='needs the photographs in ../shared/data')
@pytest.mark.parametrize('name,counts', [('coco_subset', (1886, 702, 64, 16)), ('msrc_v2', (413, 178, 18, 5))])
def test_photographs(name, counts):
    data = read_folder(SHARED/name)
    check_images(data)
    assert (len(data.train_ids), len(data.valid_ids), len(data.base_ids), len(data.novel_ids)) == counts
    with (SHARED/name/'labels.csv').open() as f: rows = list(csv.DictReader(f))
    assert int(data.labels.sum()) == sum(len(set(r['labels'].split())) for r in rows)
    assert extract_images(means(), [data.open(i) for i in range(3)]).shape == (3, 3)
