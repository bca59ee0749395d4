"COCO, VOC, CelebA and fastai's copies in their true layouts, made here; what can be wrong with them: one plain sentence each."
import csv, json, shutil
from pathlib import Path
import pytest, torch
from PIL import Image
from laso.data import layouts
from laso.core import InputError, label_names, multi_hot
from laso.data.folder import check_images, read_folder
from laso.data.coco import coco_novel, read_coco
from laso.data.layouts import fastai_data, load_data, read_celeba, read_voc
from laso.train.finetune import classifier_dls

SHARED = Path(__file__).resolve().parent.parent.parent/'shared'/'data'
NAMES = '''person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,bird,
cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,
baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,
orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,
cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush'''.replace('\n', '').split(',')
IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
WORDS = [o.replace(' ', '_') for o in NAMES]
NOVEL = 'bicycle boat stop_sign bird backpack frisbee snowboard surfboard cup fork spoon broccoli chair keyboard microwave vase'

def picture(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 6), 'teal').save(file)

def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text) if isinstance(text, str) else file.write_bytes(text)

@pytest.fixture
def refused():
    "`refused(f, *parts)`: `f` raises one plain sentence with all of the parts."
    def check(f, *parts):
        with pytest.raises(InputError) as e: f()
        text = str(e.value)
        assert text.startswith('expected ') and '\n' not in text and ', found ' in text and '; ' in text, text
        for o in parts: assert o in text, text
        return text
    return check

def annotations(labels, fnames, names=NAMES, ids=IDS):
    "COCO's JSON for images with these sets of ranks; image ids go down, categories too."
    images = [dict(id=1000-i, file_name=o, width=8, height=6) for i,o in enumerate(fnames)]
    anns = [dict(image_id=1000-i, category_id=ids[c], bbox=[1, 1, 5, 4], area=20, iscrowd=0, segmentation=[[1, 1, 6, 1, 6, 5]])
            for i,l in enumerate(labels) for c in l]
    for i,o in enumerate(anns): o['id'] = 7*i
    return dict(images=images, categories=[dict(id=i, name=o, supercategory='') for i,o in zip(ids, names)][::-1], annotations=anns)

def circle(n, k=10): return [{(i+j) % 80 for j in range(k)} for i in range(n)]

def write_coco(path, year=2014, folder='', n=(80, 80), name='COCO_{split}_{i:012}.jpg'):
    for split,k in zip(('train', 'val'), n):
        split = f'{split}{year}'
        fnames = [name.format(split=split, i=i) for i in range(k)]
        for o in fnames: picture(path/folder.format(split=split)/o)
        write(path/'annotations'/f'instances_{split}.json', json.dumps(annotations(circle(k), fnames)))
    return path

@pytest.fixture(scope='module')
def coco(tmp_path_factory): return write_coco(tmp_path_factory.mktemp('coco'), folder='{split}')

def test_coco(coco, capfd):
    data = read_coco(coco)
    assert capfd.readouterr() == ('', '')
    assert data.name == 'coco2014' and data.vocab == WORDS and data.novel_vocab == NOVEL.split()
    assert data.fnames[:2] == [f'train2014/COCO_train2014_{i:012}.jpg' for i in range(2)]
    assert data.fnames[80] == 'val2014/COCO_val2014_000000000000.jpg' and data.is_valid.tolist() == [False]*80 + [True]*80
    assert [set(l.nonzero().flatten().tolist()) for l in data.labels] == circle(80)*2
    assert data.open(159).size == (8, 6)
    check_images(data)
    assert len(classifier_dls(data, 16, bs=4).train_ds) == 80

def test_seeds_do_not_matter_where_all_is_given(coco):
    a,b = read_coco(coco, seed=0),read_coco(coco, seed=1)
    assert a.fingerprint() == b.fingerprint()

def test_64_16_split():
    import random
    random.seed(0)
    assert coco_novel() == sorted(set(range(80)) - set(random.sample(range(80), 64)))
    assert [WORDS[i] for i in coco_novel()] == NOVEL.split()

@pytest.mark.skipif(not (SHARED/'laso_episodes.json').is_file(), reason='needs the support sets of the authors')
def test_64_16_split_of_the_authors(): assert coco_novel() == json.loads((SHARED/'laso_episodes.json').read_text())['unseen']

@pytest.mark.parametrize('folder,images', [('{split}', None), ('images/{split}', None), ('images', None), ('', None),
    ('pics/{split}', 'pics'), ('pics', 'pics'), ('../elsewhere/{split}', '../elsewhere')])
def test_coco_places(tmp_path, folder, images):
    path = write_coco(tmp_path/'data', folder=folder)
    data = read_coco(path, images=images)
    check_images(data)
    assert len(set(map(data.file, range(160)))) == 160
    if images: assert read_coco(path, images=(path/images).resolve()).fnames == data.fnames

def test_coco_years(tmp_path, refused):
    write_coco(tmp_path, 2017, '{split}', (90, 80), '{i:012}.jpg')
    assert read_coco(tmp_path).name == 'coco2017'
    write_coco(tmp_path, 2014, '{split}')
    assert [len(read_coco(tmp_path, year=o)) for o in (None, 2014, 2017, '2017')] == [160, 160, 170, 170]
    assert [len(load_data(f'{o}:{tmp_path}')) for o in ('coco', 'coco2014', 'coco2017')] == [160, 160, 170]
    refused(lambda: read_coco(tmp_path, year=2015), '2014, 2017', 'choose another year')

def test_crowds_and_empty_boxes(coco, tmp_path):
    path = shutil.copytree(coco, tmp_path/'coco')
    file = path/'annotations'/'instances_train2014.json'
    notes = json.loads(file.read_text())
    box = lambda rank, **kw: dict(dict(id=10**6+rank, image_id=1000, category_id=IDS[rank], bbox=[0, 0, 3, 3], iscrowd=0), **kw)
    notes['annotations'] += [box(20, iscrowd=1), box(21, bbox=[0, 0, 0, 3]), box(22, bbox=[0, 0, 3, 0]), box(23, bbox=[]), box(24), box(24)]
    notes['annotations'] = [a for a in notes['annotations'] if a['image_id'] != 999]
    file.write_text(json.dumps(notes))
    data = read_coco(path)
    assert label_names(data.labels[0], data.vocab) == WORDS[:10] + ['backpack']
    assert not data.labels[1].any() and len(data.train_ids) == 80

def test_other_classes(tmp_path):
    "Novel classes are drawn with the seed, or named in novel.txt."
    for split,n in ('train', 30), ('val', 10):
        fnames = [f'{split}{i}.jpg' for i in range(n)]
        for o in fnames: picture(tmp_path/'images'/o)
        notes = annotations([{i % 10, (i+1) % 10} for i in range(n)], fnames, [f'thing {i}' for i in range(10)], [*range(5, 15)])
        write(tmp_path/'annotations'/f'instances_{split}.json', json.dumps(notes))
    a,b,c = (read_coco(tmp_path, seed=s) for s in (0, 0, 3))
    assert a.vocab == [f'thing_{i}' for i in range(10)] and len(a.novel_ids) == 2 and a.name == 'coco'
    assert a.novel_vocab == b.novel_vocab != c.novel_vocab
    (tmp_path/'novel.txt').write_text('thing_4\n')
    assert read_coco(tmp_path).novel_vocab == ['thing_4']

def change(**kwargs): return lambda notes: json.dumps({**notes, **kwargs})
def add(key, **kwargs): return lambda notes: json.dumps({**notes, key: [*notes[key], kwargs]})
def without(key): return lambda notes: json.dumps({k:v for k,v in notes.items() if k != key})
def lost(n): return change(annotations=[dict(image_id=i, category_id=1) for i in range(n)])

@pytest.mark.parametrize('text,parts', [
    (lambda _: '', ['expected images, categories and annotations', 'instances_train2014.json', 'line 1']),
    (lambda notes: json.dumps(notes)[:-9], ['instances_train2014.json']),
    (lambda _: b'\xff\xfe{}', ['instances_train2014.json']),
    (lambda _: '['*100_000, ['lists within lists']),
    (lambda _: '[]', ['another structure']),
    (lambda _: '3', ['another structure']),
    (without('images'), ["no 'images'"]), (without('categories'), ["no 'categories'"]), (without('annotations'), ["no 'annotations'"]),
    (change(images=[], annotations=[]), ['no images']),
    (change(images=['a.jpg']), ['another structure']),
    (change(images=[dict(id=1)], annotations=[]), ["no 'file_name'"]),
    (change(images=[dict(id=1, file_name=3)], annotations=[]), ['another structure']),
    (change(annotations=[dict(id=1, category_id=1)]), ["no 'image_id'"]),
    (change(annotations=[dict(id=1, image_id=1000)]), ["no 'category_id'"]),
    (add('annotations', id=-1, image_id=1000, category_id=1, bbox=3), ['boxes of four numbers', 'annotations -1;']),
    (add('annotations', id=-1, image_id=77, category_id=1), ['image_id of every annotation', 'unlisted 77;']),
    (add('annotations', id=-1, image_id='1000', category_id=1), ['image_id of every annotation', 'unlisted 1000;']),
    (add('annotations', id=-1, image_id=1000, category_id=12), ['category_id of every annotation', 'unlisted 12;']),
    (lost(25), ['0, 1, 10, 11, 12, 13, 14, 15, 16, 17, … (25 in all)']),
    (add('images', id=1000, file_name='a.jpg'), ['each image id once', '1000']),
    (add('categories', id=1, name='man'), ['each category id once', 'found more than one 1;']),
    (add('categories', id=91, name='dog'), ['each category once', 'found more than one dog;']),
    (add('categories', id=91, name=3), ['another structure']),
    (add('categories', id=91, name='hair brush'), ['same categories in both splits', 'hair_brush']),
    (add('images', id=1, file_name='../a.jpg'), ["train2014/../a.jpg", "without '..'"]),
    (add('images', id=1, file_name='/etc/hosts'), ["'/etc/hosts'"]),
    (add('images', id=1, file_name='a.jpg'), ['1 of 161 absent: train2014/a.jpg;']),
    (add('images', id=1, file_name='COCO_train2014_000000000003.jpg'), ['more than one line for train2014/COCO_train2014_000000000003.jpg']),
])
def test_bad_coco(coco, tmp_path, refused, text, parts):
    path = tmp_path/'coco'
    path.mkdir()
    for o in 'train2014', 'val2014': (path/o).symlink_to(coco/o)
    notes = json.loads((coco/'annotations'/'instances_train2014.json').read_text())
    shutil.copytree(coco/'annotations', path/'annotations')
    write(path/'annotations'/'instances_train2014.json', text(notes))
    refused(lambda: read_coco(path), *parts)

def test_coco_is_not_there(coco, tmp_path, refused):
    refused(lambda: read_coco(tmp_path/'nowhere'), 'layout coco', 'found no folder')
    refused(lambda: read_coco(tmp_path), 'instances_train2014.json or instances_train2017.json', 'neither')
    path = shutil.copytree(coco, tmp_path/'coco')
    fnames = sorted((path/'train2014').iterdir())
    for o in fnames[:12]: o.unlink()
    text = refused(lambda: read_coco(path), '12 of 160 absent', '… (12 in all)')
    assert text.count('.jpg') == 10
    shutil.rmtree(path/'val2014')
    refused(lambda: read_coco(path), '80 images of val2014', 'name their folder as images')
    (path/'annotations'/'instances_val2014.json').unlink()
    refused(lambda: read_coco(path), 'instances_val2014.json, found no file')

@pytest.mark.skipif(not (SHARED/'coco_subset').is_dir(), reason='needs the photographs in ../shared/data')
def test_coco_photographs(tmp_path):
    "Photographs in COCO's layout have the labels, splits and novel classes that their table says."
    want = read_folder(SHARED/'coco_subset')
    for split,ids in ('train2014', want.train_ids), ('val2014', want.valid_ids):
        (tmp_path/split).mkdir()
        for i in ids: (tmp_path/split/want.fnames[i]).symlink_to(want.file(i))
        labels = [want.labels[i].nonzero().flatten().tolist() for i in ids]
        write(tmp_path/'annotations'/f'instances_{split}.json', json.dumps(annotations(labels, [want.fnames[i] for i in ids])))
    got,order = load_data(f'coco:{tmp_path}'),torch.cat([want.train_ids, want.valid_ids])
    assert got.vocab == want.vocab and got.novel_vocab == want.novel_vocab
    assert (got.labels == want.labels[order]).all() and [Path(o).name for o in got.fnames] == [want.fnames[i] for i in order]
    assert (len(got.train_ids), len(got.valid_ids)) == (1886, 702)

KINDS = ['aeroplane', 'bicycle', 'bird', 'boat', 'bottle']

def voc_xml(kinds, hard=()):
    objects = ''.join(f'<object><name>{o}</name><pose>Left</pose><truncated>0</truncated><difficult>{int(o in hard)}</difficult><bndbox>'
                      '<xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox><part><name>head</name></part></object>' for o in kinds)
    return f'<annotation><folder>VOC2007</folder><filename>a.jpg</filename>{objects}</annotation>'

def write_voc(path, notes=60, **splits):
    for k,v in splits.items(): write(path/'ImageSets'/'Main'/f'{k}.txt', ''.join(f'{i:06}\n' for i in v))
    for i in range(60): picture(path/'JPEGImages'/f'{i:06}.jpg')
    for i in range(notes):
        kinds = [KINDS[i % 5], KINDS[i % 5], KINDS[(i+1) % 5]]
        write(path/'Annotations'/f'{i:06}.xml', voc_xml(kinds, hard=kinds[2:] if i % 4 == 0 else ()))
    return path

SPLITS = dict(train=range(20), val=range(20, 40), trainval=range(40), test=range(40, 60))

@pytest.fixture
def voc(tmp_path): return write_voc(tmp_path/'VOCdevkit'/'VOC2007', **SPLITS)

def voc_labels(i, difficult): return {KINDS[i % 5]} | ({KINDS[(i+1) % 5]} if difficult or i % 4 else set())

@pytest.mark.parametrize('difficult', [False, True])
def test_voc(voc, difficult):
    data = read_voc(voc, difficult=difficult)
    assert data.name == 'VOC2007' and data.vocab == KINDS and len(data.novel_ids) == 1
    assert data.fnames == [f'{i:06}.jpg' for i in range(60)] and data.valid_ids.tolist() == [*range(40, 60)]
    assert [set(label_names(l, data.vocab)) for l in data.labels] == [voc_labels(i, difficult) for i in range(60)]
    check_images(data)

def test_voc_places(voc, tmp_path, refused):
    for o in voc, voc.parent, voc.parent.parent: assert load_data(f'voc:{o}').path == voc
    write_voc(voc.parent/'VOC2012', **SPLITS)
    refused(lambda: read_voc(tmp_path), 'VOC2007, VOC2012', 'such as VOC2007')
    assert read_voc(voc.parent/'VOC2012').name == 'VOC2012'

def test_voc_without_test(tmp_path):
    "Validation images come from val where test.txt is missing or its images have no annotations."
    path = write_voc(tmp_path/'VOC2012', notes=40, **SPLITS)
    data = read_voc(path)
    assert data.train_ids.tolist() == [*range(20)] and data.valid_ids.tolist() == [*range(20, 40)] and len(data) == 40
    (path/'ImageSets'/'Main'/'test.txt').unlink()
    assert read_voc(path).fingerprint() == data.fingerprint()

def test_voc_novel(voc):
    assert read_voc(voc, seed=0).novel_vocab == read_voc(voc, seed=0).novel_vocab
    assert len({tuple(read_voc(voc, seed=s).novel_vocab) for s in range(8)}) > 1
    (voc/'novel.txt').write_text('boat\n')
    assert read_voc(voc).novel_vocab == ['boat']

BOMB = '<!DOCTYPE a [<!ENTITY b "' + 'b'*99 + '">' + ''.join(f'<!ENTITY b{i} "{f"&b{i-1 if i else str()};"*10}">' for i in range(9)) + ']>'

@pytest.mark.parametrize('text,parts', [
    ('', ['no element found']), ('<annotation>', ['no element found']), ('no xml', ['syntax error']), ('<html/>', ['<html>']),
    (b'\xff\xfe\x00', []), ('<?xml version="1.0" encoding="none"?><annotation/>', ['unknown encoding']),
    (voc_xml(['']), ['an object without a name']), ('<annotation><object/></annotation>', ['an object without a name']),
    (BOMB + '<annotation><object><name>&b8;</name></object></annotation>', ['a document type']),
    ((BOMB + '<annotation>&b8;</annotation>').encode('utf-16'), ['a document type']),
    ('<!DOCTYPE a SYSTEM "file:///etc/hosts"><annotation/>', ['a document type']),
], ids=range(11))
def test_bad_voc(voc, refused, text, parts):
    write(voc/'Annotations'/'000003.xml', text)
    refused(lambda: read_voc(voc), '000003.xml', *parts)

def test_voc_files(voc, tmp_path, refused):
    refused(lambda: read_voc('nowhere'), 'layout voc', 'found no folder nowhere')
    refused(lambda: read_voc(voc/'JPEGImages'), 'ImageSets/Main', 'none')
    for i in range(3): (voc/'JPEGImages'/f'{i:06}.jpg').unlink()
    refused(lambda: read_voc(voc), '3 of 60 absent: 000000.jpg, 000001.jpg, 000002.jpg (3 in all)')
    for i in range(11): (voc/'Annotations'/f'{i:06}.xml').unlink()
    refused(lambda: read_voc(voc), 'an annotation of every image', '11 of 60 absent: 000000, ', '000009, … (11 in all)')
    write(voc/'ImageSets'/'Main'/'trainval.txt', '000012\n../../x\n')
    refused(lambda: read_voc(voc), 'trainval.txt', "'../../x'")
    write(voc/'ImageSets'/'Main'/'trainval.txt', '000045\n000046\n')
    refused(lambda: read_voc(voc), 'ImageSets/Main, found more than one line for 000045.jpg, 000046.jpg')
    (voc/'ImageSets'/'Main'/'trainval.txt').unlink()
    refused(lambda: read_voc(voc), 'images of trainval', 'no file')

ATTRIBUTES = ['5_o_Clock_Shadow', *(f'Has_{i}' for i in range(2, 41))]

def write_celeba(path, sub=('', '', ''), attributes=None, parts=None):
    fnames = [f'{i:06}.jpg' for i in range(1, 61)]
    rows = ''.join(f"{o}  {' '.join('1' if (i+a) % 3 else '-1' for a in range(40))}\n" for i,o in enumerate(fnames))
    write(path/sub[0]/'list_attr_celeba.txt', attributes or f"60\n{' '.join(ATTRIBUTES)} \n{rows}")
    write(path/sub[1]/'list_eval_partition.txt', parts or ''.join(f'{o} {i//30 + i//45}\n' for i,o in enumerate(fnames)))
    for o in fnames: picture(path/sub[2]/'img_align_celeba'/o)
    return path

@pytest.mark.parametrize('sub', [('', '', ''), ('Anno', 'Eval', 'Img')])
def test_celeba(tmp_path, sub):
    path = write_celeba(tmp_path, sub)
    data,test = read_celeba(path),read_celeba(path, test=True)
    assert data.vocab == ATTRIBUTES and len(data.novel_ids) == 8 and data.name == 'celeba'
    assert data.fnames == [f'{i:06}.jpg' for i in range(1, 46)] and data.valid_ids.tolist() == [*range(30, 45)]
    assert data.labels.tolist() == [[float((i+a) % 3 > 0) for a in range(40)] for i in range(45)]
    assert test.fnames[30:] == [f'{i:06}.jpg' for i in range(46, 61)] and test.fnames[:30] == data.fnames[:30]
    assert load_data(f'celeba:{path}', seed=1).novel_vocab != data.novel_vocab
    check_images(data)

ROW = '000001.jpg ' + ' '.join(['1']*40)
@pytest.mark.parametrize('attributes,parts,found', [
    ('\n', None, ['list_attr_celeba.txt']), ('60\n', None, ['list_attr_celeba.txt']),
    (f"2\n{' '.join(ATTRIBUTES)}\n{ROW}\n", None, ['first line', "'2'", 'found 1;']),
    (f"1\n{' '.join(ATTRIBUTES)}\n{ROW[:-2]}\n", None, ['40 attributes', 'others for 000001.jpg']),
    (f"1\n{' '.join(ATTRIBUTES)}\n{ROW[:-2]} 2\n", None, ['40 attributes', 'others for 000001.jpg']),
    (f"1\n{' '.join(ATTRIBUTES)}\n{ROW[:-2]} x\n", None, ['40 attributes', 'others for 000001.jpg']),
    (f"2\n{' '.join(ATTRIBUTES)}\n{ROW}\n{ROW} 1\n", None, ['41 fields', 'saw 42']),
    (f"1\n{' '.join(ATTRIBUTES)}\n{ROW} 1\n", None, ['41 fields', 'found more']),
    (f"1\n{' '.join(ATTRIBUTES[:-1])} Has_2\n{ROW}\n", None, ['41 fields']),
    (b'60\n\xff\xfe\xff\n', None, ['list_attr_celeba.txt']),
    (None, '000001.jpg 0\n', ['list_eval_partition.txt', '000002.jpg', '000011.jpg, … (59 in all)']),
    (None, ''.join(f'{i:06}.jpg {i//20}\n' for i in range(1, 61)), ['no match for 000060.jpg;']),
    (None, ''.join(f'{i:06}.jpg x\n' for i in range(1, 61)), ['no match for 000001.jpg', '(60 in all)']),
    (None, ''.join(f'{i:06}.jpg 0\n' for i in range(1, 61)), ['found 0 of 40']),
], ids=range(14))
def test_bad_celeba(tmp_path, refused, attributes, parts, found):
    refused(lambda: read_celeba(write_celeba(tmp_path, attributes=attributes, parts=parts)), *found)

def test_celeba_files(tmp_path, refused):
    path = write_celeba(tmp_path)
    (path/'img_align_celeba'/'000007.jpg').unlink()
    refused(lambda: read_celeba(path), '1 of 45 absent: 000007.jpg;')
    for o in 'img_align_celeba', 'list_eval_partition.txt', 'list_attr_celeba.txt':
        (path/o).rename(tmp_path/f'gone_{o}')
        refused(lambda: read_celeba(path), f'expected {o} of CelebA', 'neither')
    refused(lambda: read_celeba('nowhere'), 'layout celeba', 'found no folder nowhere')

@pytest.fixture
def fastai(tmp_path, monkeypatch):
    "`fastai(**files)`: these copies are what fastai's download gives."
    asked = []
    monkeypatch.setattr(layouts, '_download', lambda url: asked.append(url) or tmp_path/Path(url).stem)
    return tmp_path,asked

def test_fastai_pascal(fastai):
    path,asked = fastai
    rows = [(f'{i:06}.jpg', f'{KINDS[i % 5]} {KINDS[(i+1) % 5]}', i % 2 == 0) for i in range(40)]
    for o,*_ in rows: picture(path/'pascal_2007'/'train'/o)
    with (path/'pascal_2007'/'train.csv').open('w', newline='') as f: csv.writer(f).writerows([('fname', 'labels', 'is_valid'), *rows])
    data = load_data('fastai:PASCAL_2007')
    assert asked == ['https://s3.amazonaws.com/fast-ai-imagelocal/pascal_2007.tgz'] and data.name == 'PASCAL_2007'
    assert data.vocab == KINDS and data.is_valid.tolist() == [o[2] for o in rows] and data.open(3).size == (8, 6)
    assert (data.labels == multi_hot([o[1].split() for o in rows], KINDS)).all()

@pytest.mark.parametrize('name,table,folder', [('COCO_SAMPLE', 'annotations/train_sample.json', 'train_sample'),
                                               ('COCO_TINY', 'train.json', 'train')])
def test_fastai_coco(fastai, name, table, folder):
    path,fnames,ids = fastai[0]/name.lower(),[f'{i:012}.jpg' for i in range(50)],[62, 63, 72, 75, 84, 86]
    labels = [{i % 6, (i+2) % 6} for i in range(50)]
    notes = annotations(labels, fnames, [NAMES[IDS.index(i)] for i in ids], ids)
    for o in notes['annotations']: del o['id'], o['iscrowd']
    for o in fnames: picture(path/folder/o)
    write(path/table, json.dumps(notes))
    data = fastai_data(name)
    assert data.vocab == ['chair', 'couch', 'tv', 'remote', 'book', 'vase'] and data.name == name and len(data.valid_ids) == 10
    assert [set(l.nonzero().flatten().tolist()) for l in data.labels] == labels
    assert (data.is_valid != fastai_data(name, seed=1).is_valid).any()

def test_fastai_planet(fastai):
    path,tags = fastai[0]/'planet_tiny',['clear', 'primary', 'water', 'road', 'habitation']
    for i in range(50): picture(path/'train'/f'train_{i}.jpg')
    write(path/'labels.csv', 'image_name,tags\n' + ''.join(f'train_{i},{tags[i % 5]} {tags[(i+1) % 5]}\n' for i in range(50)))
    data = fastai_data('PLANET_TINY')
    assert data.vocab == sorted(tags) and len(data.train_ids) == 40 and label_names(data.labels[0], data.vocab) == ['clear', 'primary']

@pytest.mark.parametrize('error', [ConnectionError('a\nb'), OSError(28, 'full'), Exception('Downloaded file is corrupt')])
def test_fastai_without_network(monkeypatch, refused, error):
    def fail(url): raise error
    monkeypatch.setattr(layouts, '_download', fail)
    refused(lambda: load_data('fastai:COCO_TINY'), 'download COCO_TINY', type(error).__name__)
    refused(lambda: load_data('fastai:MNIST'), "found 'MNIST'", 'PASCAL_2007, COCO_SAMPLE')

def test_folders_go_first_where_no_layout_is_named(tmp_path, refused):
    for o in 'coco:', 'none:x', str(tmp_path/'x'): refused(lambda: load_data(o), 'found no folder')
