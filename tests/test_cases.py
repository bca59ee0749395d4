"""Data folders and layouts as people have them: read as they are meant, or refused for a true reason; what is left out is said.

The cases of `../shared/cases` that concern reading, and others of their kinds that are made here."""
import io, json, os, shutil, struct, unicodedata
from pathlib import Path
import numpy as np
import pytest, torch
from helpers import refused
from hypothesis import given, settings, strategies as st
from PIL import Image
from laso.core import InputError, label_names
from laso.data import decode
from laso.data.coco import read_coco
from laso.data.decode import open_image, read_array, read_tensors, unreadable, name_unreadable
from laso.data.files import parse_json, read_json
from laso.data.folder import read_folder, read_table
from laso.data.labels import LabelTable, draw_valid
from laso.data.layouts import read_celeba, read_voc
from laso.features.table import FeatureTable, load_features

CASES = Path(__file__).resolve().parent.parent.parent/'shared'/'cases'
COLOURS = ['blue', 'green', 'red', 'yellow']
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason='needs the inputs in ../shared/cases')

def picture(file, colour='teal'):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 6), colour).save(file)

def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')
    return file

def labels_of(data): return {Path(f).stem: sorted(label_names(l, data.vocab)) for f,l in zip(data.fnames, data.labels)}

def truth(case):
    "The label sets of a table that is right."
    rows,_ = read_table(CASES/'csv_unnamed_column'/case/'labels.csv')
    return {Path(r['fname']).stem: sorted(r['labels'].split()) for r in rows}

# Cases: tables

@needs_cases
@pytest.mark.parametrize('name', ['comma', 'semicolon', 'pipe', 'python_list'])
def test_other_delimiters(name):
    first = dict(comma="'green, red' for 00.png", semicolon="'green;red'", pipe="'green|red'", python_list="['green', 'red']")[name]
    refused(lambda: read_folder(CASES/'csv_other_delimiters'/name), 'labels of labels.csv with spaces', first, '28 in all', 'separate labels by spaces')
    if name != 'python_list':
        data = read_folder(CASES/'csv_other_delimiters'/name, label_delim=dict(comma=',', semicolon=';', pipe='|')[name], n_shot=2)
        assert data.vocab == COLOURS and labels_of(data)['00'] == ['green', 'red'] and data.labels.sum() == 56

@needs_cases
@pytest.mark.parametrize('name', ['pandas_index', 'excel_column', 'excel_two_columns', 'excel_rows'])
def test_unnamed_columns(name, capfd):
    data = read_folder(CASES/'csv_unnamed_column'/name, n_shot=2)
    assert data.vocab == COLOURS and data.labels.sum() == 56 and len(data) == 28 and len(data.train_ids) == 14
    assert labels_of(data)['27'] == ['red', 'yellow'] and capfd.readouterr() == ('', '')

# Cases: layouts

def coco_notes(case, split): return json.loads((CASES/case/'data'/'annotations'/f'instances_{split}2017.json').read_text())

@needs_cases
@pytest.mark.parametrize('case', ['coco_iscrowd_text', 'coco_iscrowd_masks'])
def test_crowds(case, capfd):
    "All labels of what is no crowd, and a word about the others."
    data,want,crowds = read_coco(CASES/case/'data', n_shot=1),{},0
    for split in 'train', 'val':
        notes = coco_notes(case, split)
        names,files = {o['id']: o['name'] for o in notes['categories']},{o['id']: Path(o['file_name']).stem for o in notes['images']}
        for o in files.values(): want[o] = set()
        for a in notes['annotations']:
            if int(a['iscrowd']): crowds += 1
            else: want[files[a['image_id']]].add(names[a['category_id']])
    assert labels_of(data) == {k: sorted(v) for k,v in want.items()}
    said = capfd.readouterr().err
    assert said.count("crowds, which don't count") == (2 if crowds else 0), said
    assert sum(int(o.split()[3]) for o in said.splitlines()) == crowds

@needs_cases
def test_root_category(capfd):
    data = read_coco(CASES/'coco_roboflow_root_category'/'data', n_shot=2)
    assert data.vocab == COLOURS[::-1] or sorted(data.vocab) == COLOURS
    assert data.novel_vocab == ['yellow'] and data.labels.sum() == 56
    assert capfd.readouterr().err == 'laso: left out categories of which no object is marked: things\n'

@needs_cases
def test_backslashes(tmp_path):
    data = read_coco(CASES/'coco_windows_backslash'/'data', n_shot=2)
    assert len(data) == 28 and data.open(0).size and all('\\' not in o for o in data.fnames)
    path = shutil.copytree(CASES/'coco_windows_backslash'/'data', tmp_path/'data')
    shutil.rmtree(path/'images')
    refused(lambda: read_coco(path), 'such as images\\00.png')

@needs_cases
def test_voc_other_suffixes():
    data = read_voc(CASES/'voc_other_suffixes'/'data', n_shot=2)
    assert len(data) == 28 and data.fnames[0] == '00.png' and labels_of(data)['00'] == ['green', 'red'] and data.open(27).size

@needs_cases
def test_formats_are_named(monkeypatch):
    monkeypatch.setattr(decode, 'formats', lambda: decode.FORMATS)   # a machine without HEIC and AVIF
    photos = CASES/'files_heic_silent'/'photos'
    names = sorted(o.name for o in photos.iterdir())
    bad = unreadable([photos/o for o in names])
    assert {names[i] for i in bad} == {o for o in names if Path(o).suffix in ('.HEIC', '.avif')}
    said = name_unreadable(names, bad)
    for o in ('saved.jfif', 'scan.ppm', 'IMG_0009.JPG'): assert open_image(photos/o).mode == 'RGB' and o not in said

# Tables

ROWS = [('dog cat', False)]*5 + [('bird cat', False), ('dog', False), ('', False), ('dog cat', True), ('bird cat', True)]

@pytest.fixture
def folder(tmp_path):
    "`folder(text)`: ten images and this table."
    def make(text=None, images='images', novel='cat\n'):
        for i in range(10): picture(tmp_path/images/f'{i:02}.png', (20*i, 0, 0))
        write(tmp_path/'labels.csv', text or table())
        write(tmp_path/'novel.txt', novel)
        return tmp_path
    return make

def table(name='{:02}.png', header='fname,labels,is_valid', line='{},{},{}', sep=' '):
    return '\n'.join([header, *(line.format(name.format(i), l.replace(' ', sep), v) for i,(l,v) in enumerate(ROWS))]) + '\n'

def check(data):
    assert labels_of(data) == {f'{i:02}': sorted(l.split()) for i,(l,_) in enumerate(ROWS)}
    assert data.is_valid.tolist() == [v for _,v in ROWS] and data.open(3).getpixel((0, 0)) == (60, 0, 0)

def test_other_columns(folder):
    path = folder(table(header='image,tags,split', line='{},"{}",{}', sep=', '))
    check(read_folder(path, columns=dict(fname='image', labels='tags', is_valid='split'), label_delim=','))
    refused(lambda: read_folder(path), 'columns fname,labels, found image,tags,split')
    refused(lambda: read_folder(path, columns=dict(fname='image', labels='tags', is_valid='valid')), 'image,tags,valid', 'add valid')
    refused(lambda: read_folder(path, columns=dict(file='image')), 'found one for file')

def test_a_column_in_the_place_of_another(folder):
    "Another column may be called fname."
    check(read_folder(folder(table(header='fname,image,labels,is_valid', line='x,{},{},{}')), columns=dict(fname='image')))

def test_labels_with_spaces(folder):
    path = folder(table(line='{},"{}",{}', sep='|').replace('dog', 'hot dog'), novel='cat\n')
    data = read_folder(path, label_delim='|')
    assert data.vocab == ['bird', 'cat', 'hot_dog'] and data.labels.sum() == 17

def test_a_few_odd_labels(folder):
    "One class with a comma is a class; parts that are classes elsewhere are none."
    assert 'salt,pepper' in read_folder(folder(table().replace('06.png,dog', '06.png,"dog salt,pepper"'))).vocab
    refused(lambda: read_folder(folder(table().replace('06.png,dog', '06.png,dog;cat'))), "'dog;cat' for 06.png", 'separate labels by spaces')
    refused(lambda: read_folder(folder(table().replace('06.png,dog', '06.png,"dog, wolf"'))), "'dog, wolf' for 06.png")

@pytest.mark.parametrize('name', ['{:02}.png', './{:02}.png', 'images/{:02}.png', 'images\\{:02}.png'])
@pytest.mark.parametrize('images', ['images', '.'])
def test_beside_the_table(folder, images, name):
    if images == '.' and 'images' in name: pytest.skip('no such folder')
    check(read_folder(folder(table(name), images)))

def test_sub_folders_of_windows(folder): check(read_folder(folder(table('sub\\{:02}.png'), 'images/sub')))

@pytest.mark.parametrize('there,named', [('NFC', 'NFD'), ('NFD', 'NFC'), ('NFC', 'NFC'), ('NFD', 'NFD')])
def test_accents(tmp_path, there, named):
    forms = {o: unicodedata.normalize(o, 'é à.png') for o in ('NFC', 'NFD')}
    for i in range(9): picture(tmp_path/'images'/f'{i}.png')
    picture(tmp_path/'images'/forms[there], 'red')
    lines = [f'{i}.png,"chat piéton",{i > 6}' for i in range(9)]
    write(tmp_path/'labels.csv', '\n'.join(['fname,labels,is_valid', *lines, f"{forms[named]},{unicodedata.normalize(named, 'piéton')} chat,True"]))
    write(tmp_path/'novel.txt', unicodedata.normalize(there, 'piéton'))
    data = read_folder(tmp_path)
    assert data.fnames[-1] == forms[there] and data.open(9).getpixel((0, 0)) == (255, 0, 0)
    assert data.vocab == ['chat', 'piéton'] and data.novel_vocab == ['piéton'] and data.labels[9].tolist() == [1, 1]

def test_one_file_under_two_names(tmp_path, folder):
    refused(lambda: read_folder(folder(table()+'sub\\..\\00.png,dog,False\n')), 'inside the folder')
    picture(tmp_path/'images'/'é.png')
    lines = ''.join(f"{unicodedata.normalize(o, 'é.png')},dog,False\n" for o in ('NFC', 'NFD'))
    refused(lambda: read_folder(folder(table()+lines)), 'each image once')

# Our own split

@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_rare_classes(seed, n, n_lbl):
    "Training has an image of every class, and validation as many images as the plain draw unless no other can be spared."
    g = np.random.default_rng(seed)
    labels = torch.from_numpy((g.random((n, n_lbl)) < g.random(n_lbl)*.4)).float()
    plain,drawn = draw_valid(n, seed=seed),draw_valid(n, seed=seed, labels=labels)
    shown,trained = labels.any(0),labels[~drawn].any(0)
    if drawn.equal(plain) and not (shown == trained).all():   # all images are needed
        assert all((labels[:,labels.sum(0) == 1].any(1))[plain]) or n < 2 or plain.sum() == 1
    else: assert (shown == trained).all()
    assert drawn.sum() <= plain.sum() and drawn.any()
    if (shown == labels[~plain].any(0)).all(): assert drawn.equal(plain)

def test_a_rare_class_is_not_lost(tmp_path):
    "Every seed reads a folder in which three images show the novel class and one a base class."
    for i in range(40): picture(tmp_path/'images'/f'{i}.png')
    labels = ['dog' + ' rare'*(i == 7) + ' cat'*(i in (3, 20, 31)) for i in range(40)]
    write(tmp_path/'labels.csv', 'fname,labels\n' + ''.join(f'{i}.png,{l}\n' for i,l in enumerate(labels)))
    write(tmp_path/'novel.txt', 'cat\n')
    for seed in range(40):
        data = read_folder(tmp_path, seed=seed, n_shot=2)
        assert len(data.valid_ids) in (8, 9) and data.labels[data.train_ids].sum(0)[data.vocab.index('rare')] == 1

# Layouts

def coco(path, ids=((1, 2, 3), (1, 2, 3)), names=('dog', 'cat', 'hot dog'), extra=(), **kw):
    "Twelve images a split; image i shows class i and the next one."
    for split,own in zip(('train', 'val'), ids):
        images = [dict(id=i, file_name=f'{split}{i:02}.png') for i in range(12)]
        for o in images: picture(path/'images'/o['file_name'])
        cats = [*(dict(id=i, name=o) for i,o in zip(own, names)), *extra]
        anns = [dict(id=9*i+k, image_id=i, category_id=own[(i+k) % 3], bbox=[0, 0, 4, 4], **kw) for i in range(12) for k in (0, 1)]
        write(path/'annotations'/f'instances_{split}.json', json.dumps(dict(images=images, categories=cats, annotations=anns)))
    write(path/'novel.txt', 'hot dog\n')
    return path

def coco_want(): return {f'{s}{i:02}': sorted({0: 'dog', 1: 'cat', 2: 'hot_dog'}[(i+k) % 3] for k in (0, 1)) for s in ('train', 'val') for i in range(12)}

@pytest.mark.parametrize('ids', [((1, 2, 3), (1, 2, 3)), ((1, 2, 3), (7, 5, 6)), ((0, 1, 2), (30, 20, 10))])
def test_other_category_ids(tmp_path, ids):
    data = read_coco(coco(tmp_path, ids), n_shot=2)
    assert labels_of(data) == coco_want() and data.novel_vocab == ['hot_dog']

@pytest.mark.parametrize('crowd,said', [(0, 0), (False, 0), (None, 0), ('0', 0), (0., 0)])
def test_no_crowds(tmp_path, capfd, crowd, said):
    assert labels_of(read_coco(coco(tmp_path, iscrowd=crowd), n_shot=2)) == coco_want() and capfd.readouterr().err == ''

@pytest.mark.parametrize('crowd', ['no', 'false', '', 2, -1, 10**400, [], {}, 'x'*10**5])
def test_odd_crowds(tmp_path, crowd): refused(lambda: read_coco(coco(tmp_path, iscrowd=crowd)), 'instances_train.json')

def test_hidden_twins(tmp_path):
    "What a Mac, Jupyter or a network disk puts beside files changes nothing."
    path = coco(tmp_path)
    before = read_coco(path, n_shot=2).fingerprint()
    for o in [*path.rglob('*.*')]:
        if o.is_file(): write(o.parent/f'._{o.name}', 'twin'); write(o.parent/'.ipynb_checkpoints'/f'{o.stem}-checkpoint{o.suffix}', 'copy')
    write(path/'annotations'/'.DS_Store', 'x')
    assert read_coco(path, n_shot=2).fingerprint() == before

def voc(path, names, suffix='.jpg', filename='{}', flags='', **extra):
    half = len(names)//2
    for split,part in (('train', names[:half]), ('val', names[half:])): write(path/'ImageSets'/'Main'/f'{split}.txt', ''.join(f'{o}{flags}\n' for o in part))
    for i,o in enumerate(names):
        picture(path/'JPEGImages'/f'{o}{suffix}')
        objects = ''.join(f'<object><name>{k}</name></object>' for k in (['dog', 'traffic light', 'cat']*2)[i % 3:i % 3+2])
        write(path/'Annotations'/f'{o}.xml', f'<annotation><filename>{filename.format(o)}</filename>{objects}</annotation>')
    write(path/'novel.txt', 'traffic light\n')
    return path

NAMES = [f'my photo {i}' for i in range(12)]

@pytest.mark.parametrize('flags', ['', '  1', ' -1', '  0'])
@pytest.mark.parametrize('names', [NAMES, [f'{i:06}' for i in range(12)], [f'{i}' for i in range(12)], [f'a {i} 1' for i in range(12)]])
def test_voc_names(tmp_path, names, flags):
    data = read_voc(voc(tmp_path/'VOC', names, flags=flags), n_shot=2)
    assert data.fnames == [f'{o}.jpg' for o in names] and data.novel_vocab == ['traffic_light']

@pytest.mark.parametrize('suffix', ['.jpg', '.jpeg', '.JPG', '.png', '.webp', '.tif'])
def test_voc_suffixes(tmp_path, suffix):
    data = read_voc(voc(tmp_path/'VOC', NAMES, suffix), n_shot=2)
    assert data.fnames == [f'{o}{suffix}' for o in NAMES] and data.open(0).size == (8, 6)

def test_voc_twice_the_same_number(tmp_path):
    path = voc(tmp_path/'VOC', NAMES, '.png', filename='C:\\photos\\{}.bmp')
    for o in NAMES: picture(path/'JPEGImages'/f'{o}.bmp', 'red')
    data = read_voc(path, n_shot=2)
    assert data.fnames[0] == 'my photo 0.bmp' and data.open(0).getpixel((0, 0)) == (255, 0, 0)
    (path/'JPEGImages'/'my photo 3.png').unlink(); (path/'JPEGImages'/'my photo 3.bmp').unlink()
    refused(lambda: read_voc(path), '1 of 12 absent: my photo 3.jpg')

@pytest.mark.parametrize('mark,n', [('1', 2), ('true', 2), ('0', 0), ('False', 0), ('', 0)])
def test_difficult(tmp_path, capfd, mark, n):
    path = voc(tmp_path/'VOC', NAMES)
    file = path/'Annotations'/'my photo 0.xml'
    file.write_text(file.read_text().replace('</name>', f'</name><difficult> {mark} </difficult>'))
    assert len(labels_of(read_voc(path, n_shot=2))['my photo 0']) == 2-n
    assert capfd.readouterr().err == (f'laso: left out {n} of 24 objects: those marked as difficult\n' if n else '')
    file.write_text(file.read_text().replace('difficult> ', 'difficult>maybe '))
    refused(lambda: read_voc(path), 'my photo 0.xml', 'difficult maybe', 'in the place of 0 or 1')

# Copies

def copies(path, n):
    "Twenty training and ten validation images, `n` of which are copies."
    for i in range(30): picture(path/'images'/f'{i}.png', (i, 2, 3))
    for i in range(n): shutil.copy(path/'images'/f'{i}.png', path/'images'/f'{20+i}.png')
    write(path/'labels.csv', 'fname,labels,is_valid\n' + ''.join(f'{i}.png,dog cat,{i >= 20}\n' for i in range(30)))
    write(path/'novel.txt', 'cat\n')
    return read_folder(path)

@pytest.mark.parametrize('n', [0, 1, 5, 10])
def test_copies_are_told(tmp_path, capfd, n):
    data = copies(tmp_path/'data', n)
    data.fingerprint(), data.fingerprint()
    want = f'laso: {n} of 10 validation images of data are equal to training images, so scores say little about new images\n' if n >= 5 else ''
    assert capfd.readouterr().err == want

# Names

def test_long_names(folder):
    refused(lambda: read_folder(folder(table().replace('bird', 'b'*10_000))), 'at most 200 characters', '10,000')
    assert len(read_folder(folder(table().replace('bird', 'b'*200))).vocab[0]) == 200
    refused(lambda: LabelTable(torch.eye(2), ['a', 'b'*201], [0, 1], [0, 1]), '200 characters, found one of 201')

def test_long_names_are_cut_at_once(monkeypatch):
    "By halves: 16 measurements for a name of 4,000 letters, not one for each letter."
    from laso.ops import gallery
    n,width_of = [],gallery._text_width
    monkeypatch.setattr(gallery, '_text_width', lambda *args: n.append(1) or width_of(*args))
    text = gallery.fit_names(["Wi"*2_000, "dog"], width=1.2)
    assert len(n) < 60 and 'Wi' in text and '…' in text

def test_names_beyond_utf8(tmp_path):
    path = coco(tmp_path)
    try: os.close(os.open(os.fsencode(path/'images')+b'/\xff.png', os.O_CREAT | os.O_WRONLY))
    except OSError: pytest.skip('a disk of UTF-8 names')
    file = path/'annotations'/'instances_train.json'
    for old,new,what in (('train00.png', '\\udcff.png', 'names of files in UTF-8'), ('hot dog', 'hot \\ud800', 'names of classes in UTF-8')):
        good = {o: o.read_text() for o in file.parent.iterdir()}
        for o,text in good.items(): o.write_text(text.replace(old, new))
        (path/'novel.txt').write_text('cat\n')
        refused(lambda: read_coco(path, n_shot=2), what, '\\ud')
        for o,text in good.items(): o.write_text(text)

# Values

def features(path, **kwargs):
    FeatureTable(torch.rand(4, 3), torch.eye(4, 2), ['a', 'b'], [0, 0, 1, 1], [0, 1]).save(path)
    o = json.loads((path/'features.json').read_text())
    del o['digest']
    (path/'features.json').write_text(json.dumps({**o, **kwargs}))
    return path

DEEP = json.loads('['*500 + ']'*500)

@pytest.mark.parametrize('key', ['is_valid', 'novel', 'labels', 'vocab', 'fnames', 'meta'])
@pytest.mark.parametrize('value', [None, [None]*4, [10**400]*4, [DEEP]*4, DEEP, 10**400, 'x', {}, [[10**400]]*4, [float('1e308')*10]*4, [[-1]]*4])
def test_odd_values_in_features(tmp_path, key, value):
    if (key, value) in (('meta', {}), ('meta', DEEP[:0])): return
    try: load_features(features(tmp_path/'t', **{key: value}))
    except InputError: return
    assert key == 'meta', value

@pytest.mark.parametrize('bad', [[None]*4, [10**400]*4, [[0], []], 'x', [float('nan')]*4, [2]*4, [DEEP]*4])
def test_odd_values_in_tables(bad):
    refused(lambda: LabelTable(torch.eye(4, 2), ['a', 'b'], bad, [0, 1]), 'is_valid')
    refused(lambda: LabelTable(torch.eye(4, 2), ['a', 'b'], [0, 0, 1, 1], bad), 'novel')

def test_deep_json():
    for text in ('['*10**5, '{"a":'*10**5, '['*10**5+']'*10**5):
        with pytest.raises(ValueError): parse_json(text)

# Devices, pipes and holes

READERS = dict(csv=lambda p: ('labels.csv', lambda: read_folder(p)), coco=lambda p: ('annotations/instances_train.json', lambda: read_coco(p)),
    voc=lambda p: ('Annotations/my photo 0.xml', lambda: read_voc(p)), split=lambda p: ('ImageSets/Main/train.txt', lambda: read_voc(p)),
    celeba=lambda p: ('list_attr_celeba.txt', lambda: read_celeba(p)), novel=lambda p: ('novel.txt', lambda: read_folder(p)),
    npy=lambda p: ('features.npy', lambda: load_features(p)), json=lambda p: ('features.json', lambda: load_features(p)))

def odd_file(file, kind):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    if kind == 'pipe': os.mkfifo(file)
    elif kind == 'folder': file.mkdir()
    else: file.symlink_to(kind)

KINDS = ['pipe', 'folder', '/dev/zero', '/dev/tty', '/proc/self/mem']

def everything(path):
    "Every reader meets every kind; none may wait, so all is done in a process that can be ended."
    for kind in KINDS:
        for name,make in READERS.items():
            at = path/f"{name}{kind.replace('/', '_')}"
            if name in ('csv', 'novel'):
                for i in range(10): picture(at/'images'/f'{i:02}.png')
                write(at/'labels.csv', table())
            elif name == 'coco': coco(at)
            elif name in ('voc', 'split'): voc(at, NAMES)
            elif name in ('npy', 'json'): features(at)
            file,read = make(at)
            odd_file(at/file, kind)
            try: read()
            except InputError as e: assert ', found ' in str(e), e
            else: assert name == 'novel', (name, kind)   # no file there: classes are drawn
            for f in (read_tensors, read_array, read_json):
                try: f(at/file)
                except ValueError: pass
                else: raise AssertionError((f, kind))
            odd_file(at/'a.jpg', kind)
            try: open_image(at/'a.jpg')
            except InputError as e: assert 'found no file' in str(e) or kind == '/proc/self/mem'   # which calls itself a regular file
            else: raise AssertionError(kind)

def test_no_regular_files(tmp_path, in_clean_process):
    status,text = in_clean_process(everything, tmp_path, timeout=300)
    assert status == 0, text

def test_grown_and_long_files(tmp_path):
    file = write(tmp_path/'a.json', '[1]')
    assert read_json(file, 3) == [1]
    with pytest.raises(ValueError, match='3 bytes where 2 are the most'): read_json(file, 2)

def test_features_of_holes(tmp_path, monkeypatch):
    "Four terabytes that take no disk are refused at once; the same shape with its numbers is read."
    path = features(tmp_path/'t')
    head = (path/'features.npy').read_bytes()[:128].replace(b'(4, 3)', b'(4, 274877906944)'.ljust(6))
    size = 4*2**38*4
    with (path/'features.npy').open('wb') as f:
        np.lib.format.write_array_header_1_0(f, dict(descr='<f4', fortran_order=False, shape=(4, 2**38)))
        try: f.truncate(f.tell()+size)
        except OSError: pytest.skip('a disk of small files')
    looked,seek = [],os.lseek
    with monkeypatch.context() as m:
        m.setattr(os, 'lseek', lambda *args: looked.append(1) or seek(*args))
        refused(lambda: load_features(path), 'array of numbers')
    assert len(looked) < 10   # at the holes, never at what would be in them
    for order in 'CF':
        x = np.asarray(np.random.default_rng(0).random((3000, 1500)), order=order)
        np.save(tmp_path/'x.npy', x)
        got = read_array(tmp_path/'x.npy')
        assert (got == x).all() and got.flags.writeable and got.flags.f_contiguous == (order == 'F')

# Images that take long

def scans(n, size=256):
    f = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(f, 'JPEG', progressive=True)
    head,sos,last = f.getvalue()[:-2].rpartition(b'\xff\xda')
    return head + (sos+last)*n + b'\xff\xd9'

def test_scans(tmp_path, monkeypatch):
    "An image of too many scans is refused before it is decoded."
    from laso.data import decode
    decoded,rgb = [],decode.to_rgb
    monkeypatch.setattr(decode, 'to_rgb', lambda im: decoded.append(1) or rgb(im))
    for n,fits in ((1, True), (60, True), (300, False), (3000, False)):
        (tmp_path/'a.jpg').write_bytes(scans(n, 32))
        decoded.clear()
        if fits: assert open_image(tmp_path/'a.jpg').size == (32, 32)
        else: refused(lambda: open_image(tmp_path/'a.jpg'), 'more than 100 scans')
        assert len(decoded) == fits
    (tmp_path/'film.jpg').write_bytes(scans(1) + os.urandom(100) + b'\xff\xda'*10_000 + b'\xff'*10**5)   # a film behind the image
    assert open_image(tmp_path/'film.jpg').size == (256, 256)

def tags(n, size, e='<', wide=False):
    "A TIFF whose tags all have the same data."
    entry,at = ('HHQQ', 16+8+20*n+8) if wide else ('HHII', 8+2+12*n+4)
    head = (b'II' if e == '<' else b'MM') + (struct.pack(e+'HHHQ', 43, 8, 0, 16) if wide else struct.pack(e+'HI', 42, 8))
    body = b''.join(struct.pack(e+entry, 0x8800+i, 7, size, at) for i in range(n))
    return head + struct.pack(e+('Q' if wide else 'H'), n) + body + bytes(8 if wide else 4) + bytes(size)

def memory(): return int(next(o for o in Path('/proc/self/status').read_text().splitlines() if o.startswith('VmHWM')).split()[1])/1024

def overlapping(path):
    forms = [tags(400, 10**6, e, wide) for e in '<>' for wide in (False, True)]
    exif = b'Exif\0\0'+tags(300, 10**6)
    for i,(fmt,kw) in enumerate([('PNG', dict(exif=exif)), ('WEBP', dict(exif=exif))]):
        f = io.BytesIO()
        Image.new('RGB', (8, 8)).save(f, fmt, **kw)
        forms.append(f.getvalue())
    before = memory()
    for i,b in enumerate(forms):
        (path/'a').write_bytes(b)
        try: open_image(path/'a')
        except InputError: assert i < 4
    assert memory()-before < 60, memory()-before

def test_tags_that_overlap(tmp_path, in_clean_process):
    status,text = in_clean_process(overlapping, tmp_path, timeout=300)
    assert status == 0, text

def test_honest_tags(tmp_path):
    "TIFF of every kind that Pillow writes, and EXIF that turns."
    for mode in 'RGB', 'L', '1', 'CMYK', 'I;16':
        for c in None, 'tiff_lzw', 'tiff_deflate', 'packbits':
            for big in False, True:
                Image.new(mode, (30, 20)).save(tmp_path/'a.tif', compression=c, big_tiff=big)
                assert open_image(tmp_path/'a.tif').size == (30, 20)
    turned = Image.Exif()
    turned[0x112],turned[0x10e] = 6,'a sheep'*1000
    for o in 'jpg', 'png', 'webp', 'tif':
        Image.new('RGB', (30, 20)).save(tmp_path/f'a.{o}', exif=turned.tobytes() if o != 'tif' else turned)
        assert open_image(tmp_path/f'a.{o}').size == (20, 30), o

# The same tables teach a tagger

@pytest.mark.parametrize('name,images', [('{:02}.png', '.'), ('sub\\{:02}.png', 'images/sub')])
def test_taught(folder, name, images):
    from laso.tag.images import read_taught
    paths,tags,_ = read_taught(folder(table(name), images))
    assert all(o.is_file() for o in paths) and [sorted(o) for o in tags] == [sorted(l.split()) for l,v in ROWS if not v]
