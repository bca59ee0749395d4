"""Bad input, case after case: refused with exit status 2 and one sentence, the same from Python and from the command, or read as it should.

Each case is a name, a change of something good, and what the sentence must say (or None where the input is fine and must be read).
`test_number_of_cases` counts them."""
import csv, io, json, os, re, shutil, struct, subprocess, sys, zlib
from pathlib import Path
import numpy as np
import pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image, ImageFile
from laso import cli
from laso.core import InputError, multi_hot
from laso.data.folder import check_images, read_folder, skip_bad
from laso.ops.evaluation import evaluate
from laso.features.table import FeatureTable, load_features
from laso.fewshot.methods import fewshot
from laso.fewshot.support import Support, support_sets
from laso.fewshot.views import Views, compute_views
from laso.data.decode import PIXELS, open_image
from laso.data.labels import check_classes
from laso.data.layouts import load_data, read_coco
from laso.train.finetune import classifier_dls
from laso.train.recipes import ops_learner
from laso.ops.kinds import set_ops
from laso.tag.images import read_taught
from laso.tag.tagger import FewShotTagger

CASES = []   # names of all cases

def cases(kind, *rows):
    "Rows of (name, change, parts), as parameters of a test."
    CASES.extend(f'{kind}: {r[0]}' for r in rows)
    return pytest.mark.parametrize('change,parts', [pytest.param(*r[1:], id=r[0]) for r in rows])

def sentence(text):
    "Is it one plain sentence with what was expected, what was found and what to do?"
    head,_,rest = text.partition(', found ')
    assert text.startswith('expected ') and rest and '; ' in rest and text.isprintable(), text
    assert len(text) < 2500, len(text)
    return text

def refused(f, *parts):
    with pytest.raises(InputError) as e: f()
    assert isinstance(e.value, ValueError)
    text = sentence(str(e.value))
    for o in parts: assert o in text, text
    return text

@pytest.fixture
def laso(monkeypatch, capsys, tmp_path):
    "`laso(*args)`: the command in this process; its exit status and what it wrote to the two streams."
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['laso', *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as e: cli.main()
        return e.value.code or 0,*capsys.readouterr()
    return run

@pytest.fixture
def says(laso, tmp_path):
    "`says(text, *args)`: the command ends with status 2 and this sentence, and leaves nothing."
    def check(text, *args):
        status,out,err = laso(*args)
        assert (status, out, err) == (2, '', f'laso: {text}\n')
        assert not (tmp_path/'out').exists() and not [*tmp_path.glob('cache/*')]
    return check

def extract(path, tmp_path): return 'extract', '--data', path, '--frozen', '--backbone', 'test_efficientnet', '--weights', 'random', '--out', tmp_path/'out'

# Folders

COLS = 'fname,labels,is_valid'
LINES = [f'{i:02}.png,{l},{v}' for i,(l,v) in enumerate([('dog cat', False)]*5 + [('bird cat', False), ('dog', False), ('', False)] + [('dog cat', True), ('bird cat', True)])]

def picture(i=0, size=(8, 6)):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))

def write_table(path, lines=LINES, header=COLS, encoding='utf-8', end='\n'):
    (path/'labels.csv').write_bytes(end.join([header, *lines, '']).encode(encoding))

@pytest.fixture(scope='module')
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp('good')/'data'
    (path/'images').mkdir(parents=True)
    for i in range(10): picture(i).save(path/'images'/f'{i:02}.png')
    write_table(path)
    (path/'novel.txt').write_text('cat\n')
    return path

@pytest.fixture
def folder(good, tmp_path): return shutil.copytree(good, tmp_path/'data')

def table(*args, **kwargs): return lambda path: write_table(path, *args, **kwargs)
def raw(b, name='labels.csv'): return lambda path: (path/name).write_bytes(b)
def text(t, name, encoding='utf-8'): return raw(t.encode(encoding), name)
def line(i, new): return table([*LINES[:i], new, *LINES[i+1:]])
def more(*new): return table([*LINES, *new])
def valid(*vals): return table([f"{l.rpartition(',')[0]},{v}" for l,v in zip(LINES, vals*10)])
def wide(n): return table([f'{i}.png,dog,False' for i in range(n)])
def both(*fs): return lambda path: [f(path) for f in fs]
def gone(name): return lambda path: (path/name).unlink()
def as_folder(name): return both(gone(name), lambda path: (path/name).mkdir())
PLAIN = [l.rpartition(',')[0] for l in LINES]

FOLDERS = [
    ('good', lambda path: None, None),
    ('CRLF', table(end='\r\n'), None), ('old Mac line ends', table(end='\r'), None),
    ('byte-order mark', table(encoding='utf-8-sig'), None), ('no line end', raw('\n'.join([COLS, *LINES]).encode()), None),
    ('blank lines', table(['', *LINES, '', '']), None), ('all quoted', table(['"{}","{}","{}"'.format(*l.split(',')) for l in LINES], '"fname","labels","is_valid"'), None),
    ('another column', table([l+',x' for l in LINES], COLS+',note'), None), ('columns in another order', table([','.join(l.split(',')[::-1]) for l in LINES], 'is_valid,labels,fname'), None),
    ('no is_valid', both(table(PLAIN, 'fname,labels'), text('dog\n', 'novel.txt')), None),
    ('spaces around labels', line(0, '00.png,  dog   cat ,False'), None), ('a label twice', line(0, '00.png,dog dog cat,False'), None),
    ('other case of is_valid', valid('FALSE', 'false', 'False', 'FALSE', 'false', 'False', 'false', 'FALSE', 'TRUE', 'true'), None),
    ('accents', both(table([l.replace('bird', 'piéton') for l in LINES]), text('cat\n', 'novel.txt')), None),
    ('./ before a name', line(0, './00.png,dog cat,False'), None),
    ('sub-folder', both(lambda path: shutil.move(path/'images'/'00.png', path/'images'/'sub'/'00.png') if (path/'images'/'sub').mkdir() is None else 0, line(0, 'sub/00.png,dog cat,False')), None),
    # encodings
    ('UTF-16', table(encoding='utf-16'), ['labels.csv to be text in UTF-8', 'UTF-16']), ('UTF-16 without mark', table(encoding='utf-16-le'), ['UTF-16']),
    ('UTF-16 big endian', table(encoding='utf-16-be'), ['UTF-16']), ('UTF-32', table(encoding='utf-32'), ['UTF-16']),
    ('Latin-1', table([l.replace('bird', 'piéton') for l in LINES], encoding='latin-1'), ['byte 0xe9 in line 7', 'save it as UTF-8']),
    ('Windows-1252', table([l.replace('bird', '“bird”') for l in LINES], encoding='cp1252'), ['byte 0x93 in line 7']),
    ('Shift-JIS', table([l.replace('bird', '鳥') for l in LINES], encoding='shift-jis'), ['in line 7', 'UTF-8']),
    ('a NUL', line(3, '03.png,dog\0cat,False'), ['bytes that are no text']), ('a picture', raw(b'\x89PNG\r\n\x1a\n\0\0\0'), ['labels.csv to be text']),
    ('a zip', raw(b'PK\x03\x04'+bytes(range(256))), ['labels.csv to be text']),
    ('novel.txt in UTF-16', text('cat\n', 'novel.txt', 'utf-16'), ['novel.txt to be text in UTF-8']), ('novel.txt in Latin-1', text('chât\n', 'novel.txt', 'latin-1'), ['byte 0xe2 in line 1']),
    ('classes.txt in Latin-1', text('dog\nchât\n', 'classes.txt', 'latin-1'), ['classes.txt to be text in UTF-8', 'line 2']),
    # columns and fields
    ('empty file', raw(b''), ['columns fname,labels, found nothing', 'add fname, labels']), ('header alone', table([]), ['only its header']),
    ('one blank line', raw(b'\n'), ['found nothing']), ('another header', table(header='file,tags,split'), ['found file,tags,split', 'add fname, labels (2 in all)']),
    ('no header', raw('\n'.join(LINES).encode()), ['found 00.png,dog cat,False']), ('no labels column', table([l.split(',')[0] for l in LINES], 'fname'), ['add labels']),
    ('no fname column', table(header='name,labels,is_valid'), ['add fname']), ('upper-case header', table(header='FNAME,LABELS,IS_VALID'), ['found FNAME,LABELS']),
    ('spaces in the header', table(header='fname, labels, is_valid'), ['add labels']), ('semicolons', raw(';'.join(COLS.split(',')).encode()+b'\n00.png;dog;False'), ['found fname;labels;is_valid']),
    ('tabs', raw(b'fname\tlabels\n00.png\tdog\n'), ['columns fname,labels']), ('a column twice', table([l+',dog' for l in LINES], COLS+',labels'), ['each column of labels.csv once', 'more than one labels;']),
    ('10,000 columns', table(['x,'*9999], ','.join(f'c{i}' for i in range(10_000))), ['…; add fname, labels']),
    ('a field too few', line(2, '02.png,dog cat'), ['3 fields', 'in line 4;']), ('a field too many', line(2, '02.png,dog,cat,False'), ['3 fields', 'line 4;']),
    ('labels with commas', table([l.replace(' cat', ',cat') for l in LINES]), ['separate labels by spaces', '8 in all']),
    ('eleven short lines', table([*LINES, *[f'{i}.png' for i in range(11)]]), ['12, 13, 14, 15, 16, 17, 18, 19, 20, 21, … (11 in all)']),
    ('quote left open', line(2, '02.png,"dog cat,False'), ['comma-separated text', 'unexpected end of data']),
    ('quote left open, two columns', table([*PLAIN[:2], '02.png,"dog cat', *PLAIN[3:]], 'fname,labels'), ['unexpected end of data']),
    ('text after a quote', line(2, '02.png,"dog" cat,False'), ['comma-separated text']), ('a line break in quotes', line(2, '02.png,"dog\n03.png,cat",False'), ['one line of labels.csv for each image', 'before line 5;']),
    ('a field of a megabyte', line(2, f"02.png,{'dog '*300_000},False"), ['field larger than field limit']),
    # names
    ('a name twice', more(LINES[0]), ['each image once', 'more than one line for 00.png;']), ('a name twice, written differently', more('./00.png,dog,False'), ['more than one line for 00.png;']),
    ('all names twice', more(*LINES), ['04.png, 05.png', '10 in all']), ('no name', line(0, ',dog cat,False'), ["inside the folder images, found ''"]),
    ('absolute', more('/etc/hosts,dog,False'), ["found '/etc/hosts';"]), ('..', more('../labels.csv,dog,False'), ["'../labels.csv'", "without '..'"]), ('.. inside', more('a/../../b.png,dog,False'), ["'a/../../b.png'"]),
    ('.. alone', more('..,dog,False'), ["found '..';"]), ('Windows drive', more('C:\\a.png,dog,False'), ["'C:\\\\a.png'"]), ('Windows ..', more('..\\a.png,dog,False'), ["'..\\\\a.png'"]),
    ('network share', more('\\\\host\\a.png,dog,False'), ['inside the folder images']), ('absent', more('x.png,dog,False'), ['1 of 11 absent: x.png;']),
    ('two absent', more('x.png,dog,False', 'y.png,,True'), ['2 of 12 absent: x.png, y.png (2 in all);']), ('eleven absent', more(*[f'x{i:02}.png,dog,False' for i in range(11)]), ['11 of 21 absent', 'x09.png, … (11 in all)']),
    ('a folder in place of a picture', both(lambda path: (path/'images'/'sub').mkdir(), more('sub,dog,False')), ['1 of 11 absent: sub;']), ('. alone', more('.,dog,False'), ['1 of 11 absent: .;']),
    ('a name of 5000 characters', more(f"{'x'*5000}.png,dog,False"), ['1 of 11 absent: xxx', '…;']), ('a name with an escape', more('\x1b[2Jx.png,dog,False'), ['absent: \\x1b[2Jx.png;']),
    ('a name in another case', line(1, '01.PNG,dog cat,False'), ['absent: 01.PNG;']), ('a space before a name', line(1, ' 01.png,dog cat,False'), ['absent:  01.png;']),
    ('a link to nowhere', both(lambda path: (path/'images'/'n.png').symlink_to('nowhere'), more('n.png,dog,False')), ['absent: n.png;']),
    ('no images folder', lambda path: shutil.rmtree(path/'images'), ['10 of 10 absent']), ('10,000 rows, none there', wide(10_000), ['10000 of 10000 absent', '(10000 in all)']),
    # splits
    ('is_valid yes', valid('yes'), ["True or False, found 'yes' for 00.png", '10 in all']), ('is_valid 0', valid('0', '1'), ["'0' for 00.png"]), ('is_valid empty', valid(''), ["'' for 00.png"]),
    ('is_valid twice the same', valid('False'), ['expected validation images, found none among 10']), ('nothing to train on', valid('True'), ['expected training images, found none among 10']),
    ('novel class in training only', table([l.replace('cat', 'dog') if l.endswith('True') else l for l in LINES]), ['validation image of every novel class', 'cat']),
    # classes
    ('no labels at all', table([f"{l.split(',')[0]},,{l.split(',')[2]}" for l in LINES]), ['expected labels in labels.csv, found none']), ('labels of spaces', table([f"{l.split(',')[0]},   ,{l.split(',')[2]}" for l in LINES]), ['expected labels']),
    ('one class', table([f"{l.split(',')[0]},cat,{l.split(',')[2]}" for l in LINES]), ['no base class']), ('one class, no novel.txt', both(gone('novel.txt'), table([f"{l.split(',')[0]},cat,{l.split(',')[2]}" for l in LINES])), ['to draw the novel']),
    ('one picture', table(LINES[:1]), ['expected validation images, found none among 1']), ('one picture, no is_valid', table(PLAIN[:1], 'fname,labels'), ['expected training images']),
    ('two pictures', table(LINES[-2:]), ['expected training images']), ('four of a novel class', table(LINES[2:]), ['at least 5 training images', 'found cat 4']),
    ('base class in validation only', table([l.replace('bird', 'dog') if l.endswith('False') else l for l in LINES]), ['every base class', 'none for bird']),
    ('unknown novel class', text('cat\nunicorn\n', 'novel.txt'), ['no image of unicorn;']), ('many unknown novel classes', text('\n'.join(f'u{i}' for i in range(30)), 'novel.txt'), ['u9, … (30 in all)']),
    ('all classes novel', text('cat\ndog\nbird\n', 'novel.txt'), ['no base class']), ('no novel class', text('', 'novel.txt'), ['no novel class']), ('novel.txt of blank lines', text('\n \n', 'novel.txt'), ['no novel class']),
    ('label not in classes.txt', text('dog\ncat\n', 'classes.txt'), ['class of classes.txt, found bird;']), ('class twice', text('dog\ncat\nbird\ndog\n', 'classes.txt'), ['each class once', 'dog']),
    ('class with a space', text('dog\ncat\nbird\nstop sign\n', 'classes.txt'), ["'stop sign'"]), ('class without a picture', text('dog\ncat\nbird\ncow\n', 'classes.txt'), ['every base class', 'cow']),
    ('classes.txt empty', text('', 'classes.txt'), ['found bird, cat, dog (3 in all)']), ('twelve unlisted classes', both(text('dog\ncat\nbird', 'classes.txt'), line(0, f"00.png,cat {' '.join(f'u{i:02}' for i in range(12))},False")), ['u09, … (12 in all)']),
    ('a class with an escape', text('cat\n\x1b[31mred\n', 'novel.txt'), ['\\x1b[31mred']), ('a class of 1000 characters', text(f"cat\n{'x'*1000}", 'novel.txt'), ['xxx…;']),
    # files
    ('no labels.csv', gone('labels.csv'), ['a file labels.csv', 'found none']), ('labels.csv is a folder', as_folder('labels.csv'), ['a file labels.csv']), ('no folder', shutil.rmtree, ['found no folder', 'check the path']),
    ('a file in place of the folder', lambda path: shutil.rmtree(path) or path.write_text('x'), ['found no folder']),
    ('a picture that is text', text('no picture', 'images/03.png'), ['1 of 10 that can\'t: 03.png;', '--skip-bad']),
]

@cases('folder', *FOLDERS)
def test_folder(folder, says, tmp_path, change, parts):
    change(folder)
    def read(): check_images(read_folder(folder))
    if parts is None: return read()
    says(refused(read, *parts), *extract(folder, tmp_path))

def test_what_is_read_is_right(folder):
    "The cases that are fine give the labels of the plain table."
    want = read_folder(folder)
    for name,change,parts in FOLDERS:
        if parts is None and name not in ('accents', 'sub-folder', 'no is_valid'):
            change(folder)
            got = read_folder(folder)
            assert [os.path.normpath(o) for o in got.fnames] == want.fnames and (got.labels == want.labels).all(), name
            assert got.vocab == want.vocab and (got.is_valid == want.is_valid).all() and got.novel_vocab == ['cat'], name

@cases('teach', *[r for r in FOLDERS if r[0] in ('UTF-16', 'Latin-1', 'another header', 'a field too few', 'quote left open', 'a name twice', '..', 'absolute', 'two absent', 'header alone', 'is_valid yes')])
def test_taught_folder(folder, says, tmp_path, change, parts):
    change(folder)
    says(refused(lambda: read_taught(folder), *parts), 'teach', folder, '--out', tmp_path/'out')

TAUGHT = [
    ('empty', shutil.rmtree, ['folder of images or a table of them, found no']), ('no sub-folders', both(gone('labels.csv'), lambda path: shutil.rmtree(path/'images')), ['sub-folder of images for each tag']),
    ('sub-folders without pictures', both(gone('labels.csv'), lambda path: shutil.rmtree(path/'images'), lambda path: (path/'cat').mkdir()), ['sub-folder of images for each tag']),
    ('a tag with a broken picture', both(gone('labels.csv'), lambda path: (path/'images').rename(path/'cat'), text('no picture', 'cat/03.png'), text('no picture', 'cat/05.png')), ["2 of 10 that can't", '03.png', '05.png (2 in all)']),
]

@cases('teach', *TAUGHT)
def test_taught(folder, says, tmp_path, change, parts):
    change(folder)
    where = ('--backbone', 'test_efficientnet', '--weights', 'random', '--plain')
    status = refused(lambda: FewShotTagger.teach(folder, ops=None, backbone=means()), *parts)
    says(status, 'teach', folder, '--out', tmp_path/'out', *where)

@pytest.mark.slow
def test_a_million_rows(folder, tmp_path):
    "Read, checked and refused in less than 3 GB; with a class each, refused before the labels are allocated."
    import resource
    wide(10**6)(folder)
    refused(lambda: read_folder(folder), '1000000 of 1000000 absent', '9.png, … (1000000 in all)')
    with pytest.raises(InputError, match='at most 1,000,000,000 pairs'): multi_hot([(i,) for i in range(10**6)], range(10**6))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3*2**20

# COCO

def coco_json(split, n=30):
    first = dict(train=0, val=100)[split]
    images = [dict(id=first+i, file_name=f'{first+i}.png', width=8, height=6) for i in range(n)]
    anns = [dict(id=1000*first+10*i+k, image_id=first+i, category_id=1+(i+k) % 5, bbox=[1, 1, 3, 2.5], area=7.5, iscrowd=0) for i in range(n) for k in range(2)]
    return dict(images=images, annotations=anns, categories=[dict(id=1+i, name=o) for i,o in enumerate(['dog', 'cat', 'bird', 'hot dog', 'car'])])

@pytest.fixture(scope='module')
def good_coco(tmp_path_factory):
    path = tmp_path_factory.mktemp('coco')/'data'
    (path/'annotations').mkdir(parents=True)
    for split in 'train', 'val':
        notes = coco_json(split)
        (path/f'{split}2017').mkdir()
        for o in notes['images']: picture(o['id']).save(path/f'{split}2017'/o['file_name'])
        (path/'annotations'/f'instances_{split}2017.json').write_text(json.dumps(notes))
    (path/'novel.txt').write_text('cat\n')
    return path

def ann(**kw): return lambda d: d['annotations'].append(dict(dict(id=-1, image_id=3, category_id=1, bbox=[0, 0, 2, 2], iscrowd=0), **kw))
def drop(key, of='annotations'): return lambda d: d[of][0].pop(key) and None
def put(**kw): return lambda d: d.update(kw)
def entry(of, **kw): return lambda d: d[of].append(kw)
def change_first(of, **kw): return lambda d: d[of][0].update(kw)
def written(f): return lambda d: f(json.dumps(d))

COCO = [
    ('good', lambda d: None, None), ('crowd', ann(iscrowd=1), None), ('no box', lambda d: d['annotations'].append(dict(id=-1, image_id=3, category_id=1)), None),
    ('no area', drop('area'), None), ('box of width 0', ann(bbox=[0, 0, 0, 3]), None), ('box of height 0', ann(bbox=[0, 0, 3, 0]), None), ('empty box', ann(bbox=[]), None),
    ('no annotation ids', lambda d: [a.pop('id') for a in d['annotations']], None), ('category with a space', lambda d: None, None), ('outline', ann(segmentation=[[1, 1, 2, 2, 1, 2]]), None),
    ('negative width', ann(bbox=[0, 0, -1, 3]), ['boxes of four numbers', 'annotations -1;']), ('negative height', ann(bbox=[0, 0, 1, -3]), ['sides not negative']), ('box of NaN', ann(bbox=[0, 0, float('nan'), 3]), ['NaN in the place of a number']),
    ('box of infinity', ann(bbox=[0, 0, float('inf'), 3]), ['Infinity in the place of a number']), ('box of 1e999', lambda d: json.dumps(d).replace('2.5', '1e999'), ['boxes of four numbers', '60 in all']), ('box of three', ann(bbox=[0, 0, 1]), ['boxes of four numbers']),
    ('box of words', ann(bbox=['a', 'b', 'c', 'd']), ['boxes of four numbers']), ('box a number', ann(bbox=3), ['boxes of four numbers']), ('box null', ann(bbox=None), ['boxes of four numbers']), ('NaN elsewhere', ann(area=float('nan')), ['NaN in the place']),
    ('dangling image', ann(image_id=77), ['image_id of every annotation', 'unlisted 77;']), ('dangling category', ann(category_id=9), ['category_id of every annotation', 'unlisted 9;']), ('image id as text', ann(image_id='3'), ['unlisted 3;']),
    ('25 dangling images', lambda d: [ann(image_id=200+i)(d) for i in range(25)], ['209, … (25 in all)']), ('image id null', ann(image_id=None), ['unlisted None;']), ('image id a list', ann(image_id=[3]), ['another structure']),
    ('image id twice', entry('images', id=3, file_name='x.png'), ['each image id once', 'more than one 3;']), ('category id twice', entry('categories', id=1, name='cow'), ['each category id once']), ('category twice', entry('categories', id=9, name='dog'), ['each category once', 'dog;']),
    ('categories that become one', entry('categories', id=9, name='hot_dog'), ['each category once', 'hot_dog;']), ('category without a name', entry('categories', id=9), ["no 'name'"]), ('category of spaces', entry('categories', id=9, name=' '), ['a category without a name']),
    ('category a number', entry('categories', id=9, name=3), ['another structure']), ('no image_id', drop('image_id'), ["no 'image_id'"]), ('no category_id', drop('category_id'), ["no 'category_id'"]), ('no file_name', drop('file_name', 'images'), ["no 'file_name'"]),
    ('no image id', drop('id', 'images'), ["no 'id'"]), ('images null', put(images=None), ['images, categories and annotations']), ('no images', put(images=[], annotations=[]), ['no images']), ('annotations a dict', put(annotations={}), None and []),
    ('categories gone', lambda d: d.pop('categories') and None, ["no 'categories'"]), ('annotations gone', lambda d: d.pop('annotations') and None, ["no 'annotations'"]), ('file name ..', entry('images', id=99, file_name='../a.png'), ["without '..'"]),
    ('file name absolute', entry('images', id=99, file_name='/etc/hosts'), ["'/etc/hosts'"]), ('file name a number', entry('images', id=99, file_name=3), ['another structure']), ('file name twice', entry('images', id=99, file_name='3.png'), ['more than one line for train2017/3.png']),
    ('file absent', entry('images', id=99, file_name='x.png'), ['1 of 61 absent: train2017/x.png;']), ('other categories', entry('categories', id=9, name='cow'), ['same categories in both splits', 'cow']), ('a list', lambda d: '[]', ['another structure']),
    ('a number', lambda d: '3', ['another structure']), ('null', lambda d: 'null', ['another structure']), ('empty', lambda d: '', ['instances_train2017.json']), ('cut off', written(lambda t: t[:-9]), ['instances_train2017.json']), ('UTF-16', written(lambda t: t.encode('utf-16')), None and []),
    ('Latin-1', written(lambda t: t.replace('bird', 'é').encode('latin-1')), ['instances_train2017.json']), ('deep', lambda d: '['*10**5, ['lists within lists']), ('deep dicts', lambda d: '{"a":'*10**5, ['lists within lists']), ('a number of 10,000 digits', ann(area=0) and written(lambda t: t.replace('7.5', '7'*10_000)), ['instances_train2017.json']),
]
COCO = [r for r in COCO if r[0] not in ('annotations a dict', 'UTF-16')]

@cases('COCO', *COCO)
def test_coco(good_coco, tmp_path, says, change, parts):
    path = tmp_path/'coco'
    (path/'annotations').mkdir(parents=True)
    for o in 'train2017', 'val2017': (path/o).symlink_to(good_coco/o)
    for o in 'annotations/instances_train2017.json', 'annotations/instances_val2017.json', 'novel.txt': shutil.copy(good_coco/o, path/o)
    notes = coco_json('train')
    new = change(notes)
    new = new if isinstance(new, (str, bytes)) else json.dumps(notes)
    (path/'annotations'/'instances_train2017.json').write_bytes(new if isinstance(new, bytes) else new.encode())
    if parts is None:
        data,want = read_coco(path),read_coco(good_coco)
        assert data.vocab == want.vocab == ['dog', 'cat', 'bird', 'hot_dog', 'car']
        return check_images(data)
    says(refused(lambda: load_data(f'coco:{path}'), *parts), *extract(f'coco:{path}', tmp_path))

# Pictures

def encoded(im, fmt='PNG', **kw):
    f = io.BytesIO()
    im.save(f, fmt, **kw)
    return f.getvalue()

def png(w, h, depth, color, data, extra=b''):
    chunk = lambda t,d: struct.pack('>I', len(d))+t+d+struct.pack('>I', zlib.crc32(t+d))
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, depth, color, 0, 0, 0))+extra+chunk(b'IDAT', zlib.compress(data))+chunk(b'IEND', b'')

def png16(a):
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[a.shape[2]]
    return png(a.shape[1], a.shape[0], 16, colour, b''.join(b'\0'+r.astype('>u2').tobytes() for r in a))

IM = picture(1, (9, 7))
GREY16 = np.random.default_rng(3).integers(0, 2**16, (7, 9, 4), dtype=np.uint16)
FILM = [Image.new('RGB', (9, 7), o) for o in ('red', 'lime', 'blue')]
TURNS = {2: lambda a: a[:,::-1], 3: lambda a: a[::-1,::-1], 4: lambda a: a[::-1], 5: lambda a: a.transpose(1, 0, 2), 6: lambda a: a.transpose(1, 0, 2)[:,::-1],
         7: lambda a: a.transpose(1, 0, 2)[::-1,::-1], 8: lambda a: a.transpose(1, 0, 2)[::-1]}

def turned(k, fmt='PNG', **kw):
    exif = Image.Exif()
    exif[0x112] = k
    return encoded(IM, fmt, exif=exif, **kw)

def rgb(): return np.asarray(IM)
def flat(colour, shape=(7, 9)): return np.broadcast_to(np.uint8(colour), (*shape, 3))
def near(want, eps=0): return lambda got: got.shape == np.shape(want) and np.abs(got.astype(int)-np.asarray(want).astype(int)).max() <= eps
P = IM.quantize(16)
def transparent(): return Image.merge('RGBA', [*IM.split(), Image.fromarray(np.repeat(np.uint8([[0, 255, 128]]), 7, 0).repeat(3, 1))])
def on_white(): a = np.asarray(transparent()).astype(float); return a[...,:3]*a[...,3:]/255 + 255 - a[...,3:]
def palette_alpha():
    im = Image.new('P', (9, 7), 1)
    im.putpalette([255, 0, 0, 0, 0, 255])
    im.putpixel((0, 0), 0)
    return im

PICTURES = [(f'{fmt}', encoded(IM, fmt, **kw), near(rgb(), eps)) for fmt,kw,eps in
            [('PNG', {}, 0), ('BMP', {}, 0), ('TIFF', {}, 0), ('PPM', {}, 0), ('WEBP', dict(lossless=True), 0), ('JPEG', dict(quality=95, subsampling=0), 40)]]
PICTURES += [(f'EXIF {k} {fmt}', turned(k, fmt, **kw), near(f(rgb()), eps)) for fmt,kw,eps in [('PNG', {}, 0), ('WEBP', dict(lossless=True), 0), ('JPEG', dict(quality=95, subsampling=0), 40)] for k,f in TURNS.items()]
PICTURES += [
    ('EXIF 6 TIFF', encoded(IM, 'TIFF', tiffinfo={0x112: 6}), near(TURNS[6](rgb()))), ('EXIF 1', turned(1), near(rgb())), ('EXIF 9', turned(9), near(rgb())), ('EXIF garbage', encoded(IM, 'PNG', exif=b'Exif\0\0garbage'), near(rgb())),
    ('tiled EXIF', encoded(IM, 'WEBP', lossless=True, exif=b'II*\0\x08\0\0\0\xff\xff'), near(rgb())),
    ('GIF', encoded(P, 'GIF'), near(np.asarray(P.convert('RGB')))), ('palette', encoded(P), near(np.asarray(P.convert('RGB')))), ('grey', encoded(IM.convert('L')), near(np.asarray(IM.convert('L'))[...,None].repeat(3, 2))),
    ('one bit', encoded(IM.convert('1')), near(np.asarray(IM.convert('1')).astype(np.uint8)[...,None].repeat(3, 2)*255)), ('alpha', encoded(transparent()), near(on_white(), 1)),
    ('grey alpha', encoded(Image.merge('LA', (Image.new('L', (9, 7), 10), Image.new('L', (9, 7), 0)))), near(flat(255))), ('palette with alpha', encoded(palette_alpha(), transparency=1), lambda a: near(flat(255))(np.delete(a.reshape(-1, 3), 0, 0)[None].repeat(1, 0)) if 0 else (a[0,0] == [255,0,0]).all() and (a[1:] == 255).all()),
    ('palette with alpha bytes', encoded(palette_alpha(), transparency=bytes([255, 0])), lambda a: (a[0,0] == [255,0,0]).all() and (a[1:] == 255).all()), ('GIF with a hole', encoded(palette_alpha(), 'GIF', transparency=1), lambda a: (a[0,0] == [255,0,0]).all() and (a[1:] == 255).all()),
    ('colour key', encoded(Image.new('RGB', (9, 7), (1, 2, 3)), transparency=(1, 2, 3)), near(flat(255))), ('grey key', encoded(Image.new('L', (9, 7), 5), transparency=5), near(flat(255))), ('WebP alpha', encoded(transparent(), 'WEBP', lossless=True, exact=True), near(on_white(), 1)),
    ('CMYK JPEG', encoded(Image.new('CMYK', (9, 7), (255, 0, 0, 0)), 'JPEG', quality=95), near(flat([0, 255, 255]), 4)), ('CMYK TIFF', encoded(Image.new('CMYK', (9, 7), (0, 255, 0, 0)), 'TIFF'), near(flat([255, 0, 255]))),
    ('YCbCr TIFF', encoded(Image.new('RGB', (9, 7), (200, 30, 40)).convert('YCbCr'), 'TIFF'), near(flat([200, 30, 40]), 3)), ('LAB TIFF', encoded(Image.new('LAB', (9, 7), (255, 128, 128)), 'TIFF'), lambda a: a.min() > 150),
    ('grey, 16 bits PNG', png16(GREY16[...,:1]), near((GREY16[...,:1] >> 8).repeat(3, 2))), ('grey, 16 bits TIFF', encoded(Image.fromarray(GREY16[...,0].copy()), 'TIFF'), near((GREY16[...,:1] >> 8).repeat(3, 2))),
    ('grey, 16 bits big endian', encoded(Image.fromarray(GREY16[...,0].copy()).convert('I;16B') if hasattr(Image, '_x') else Image.frombytes('I;16B', (9, 7), GREY16[...,0].astype('>u2').tobytes()), 'TIFF'), near((GREY16[...,:1] >> 8).repeat(3, 2))),
    ('colour, 16 bits', png16(GREY16[...,:3]), near(GREY16[...,:3] >> 8)), ('colour and alpha, 16 bits', png16(np.dstack([GREY16[...,:3], np.full((7, 9), 65535, np.uint16)])), near(GREY16[...,:3] >> 8, 1)),
    ('grey and alpha, 16 bits', png16(np.dstack([GREY16[...,0], np.full((7, 9), 65535, np.uint16)])), near((GREY16[...,:1] >> 8).repeat(3, 2), 1)), ('PGM of 16 bits', b'P5 9 7 65535\n'+GREY16[...,0].astype('>u2').tobytes(), near((GREY16[...,:1] >> 8).repeat(3, 2))),
    ('animated GIF', encoded(FILM[0], 'GIF', save_all=True, append_images=FILM[1:]), near(flat([255, 0, 0]))), ('animated PNG', encoded(FILM[0], 'PNG', save_all=True, append_images=FILM[1:]), near(flat([255, 0, 0]))),
    ('animated WebP', encoded(FILM[0], 'WEBP', save_all=True, append_images=FILM[1:], lossless=True), near(flat([255, 0, 0]))), ('TIFF of pages', encoded(FILM[0], 'TIFF', save_all=True, append_images=FILM[1:]), near(flat([255, 0, 0]))),
    ('MPO', encoded(FILM[0], 'MPO', save_all=True, append_images=FILM[1:]), near(flat([254, 0, 0]), 3)), ('progressive', encoded(IM, 'JPEG', progressive=True, quality=95, subsampling=0), near(rgb(), 40)), ('LZW', encoded(IM, 'TIFF', compression='tiff_lzw'), near(rgb())),
    ('1x1', encoded(picture(0, (1, 1))), lambda a: a.shape == (1, 1, 3)), ('1x1 GIF', encoded(picture(0, (1, 1)), 'GIF'), lambda a: a.shape == (1, 1, 3)), ('1x3000', encoded(picture(0, (1, 3000))), lambda a: a.shape == (3000, 1, 3)), ('3000x1', encoded(picture(0, (3000, 1)), 'JPEG'), lambda a: a.shape == (1, 3000, 3)),
    ('a JPEG named .png', encoded(FILM[2], 'JPEG'), near(flat([0, 0, 254]), 3)), ('text behind the picture', encoded(IM)+b'<?php ?>', near(rgb())),
]

def cut(fmt, share, **kw): return encoded(P if fmt == 'GIF' else picture(2, (40, 30)), fmt, **kw)[:-max(2, int(share*2000))]
def halves(fmt, **kw):
    whole = encoded(P if fmt == 'GIF' else picture(2, (40, 30)), fmt, **kw)
    return [(f'{fmt} cut at {f:.0%}', whole[:int(len(whole)*f)], 'something else') for f in (.02, .2, .5, .8)]

def claims(w, h):
    "Headers of pictures of this size with next to nothing behind."
    jpeg,gif,tiff = bytearray(encoded(IM, 'JPEG')),bytearray(encoded(P, 'GIF')),bytearray(encoded(IM, 'TIFF'))
    for tag,v in (0x100, w), (0x101, h):
        at = next(i for i in range(8, len(tiff), 2) if tiff[i:i+2] == struct.pack('<H', tag) and tiff[i+4:i+8] == struct.pack('<I', 1))
        tiff[at+2:at+4],tiff[at+8:at+12] = struct.pack('<H', 4),struct.pack('<I', w)
    at = jpeg.index(b'\xff\xc0')
    jpeg[at+5:at+9] = struct.pack('>HH', min(h, 65500), min(w, 65500))
    gif[6:10] = struct.pack('<HH', min(w, 65535), min(h, 65535))
    bmp = bytearray(encoded(IM, 'BMP'))
    bmp[18:26] = struct.pack('<ii', w, h)
    return dict(PNG=png(w, h, 8, 2, bytes(99)), JPEG=bytes(jpeg), GIF=bytes(gif), BMP=bytes(bmp), PPM=b'P6 %d %d 255\n' % (w, h) + bytes(99),
                TIFF=bytes(tiff))

LARGE = f'more than {PIXELS//10**6} million pixels'
BROKEN = [o for fmt,kw in dict(PNG={}, JPEG={}, WEBP={}, TIFF={}, BMP={}, GIF={}, PPM={}).items() for o in halves(fmt, **kw)]
BROKEN += [(f'{fmt} of 30,000x30,000', b, LARGE) for fmt,b in claims(30_000, 30_000).items()] + [(f'{fmt} of 12,000x12,000', b, LARGE) for fmt,b in claims(12_000, 12_000).items()]
BROKEN += [('PNG of 2^31 pixels a side', claims(2**31-1, 2**31-1)['PNG'], LARGE), ('a real PNG of 30,000x30,000', png(30_000, 30_000, 1, 0, bytes(3751*30_000)), LARGE)]
BROKEN += [('text', b'no picture', 'something else'), ('empty', b'', 'something else'), ('HTML', b'<html><img src=x></html>', 'something else'), ('SVG', b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'something else'),
    ('PostScript', encoded(IM, 'EPS'), 'something else'), ('PDF', encoded(IM, 'PDF'), 'something else'), ('zip', b'PK\x03\x04'+bytes(99), 'something else'), ('ICO', encoded(IM, 'ICO'), 'something else'), ('TGA', encoded(IM, 'TGA'), 'something else'),
    ('fractions', encoded(Image.fromarray(np.random.rand(7, 9).astype(np.float32)), 'TIFF'), 'something else'), ('32 bits', encoded(Image.fromarray(np.full((7, 9), 10**6, np.int32)), 'TIFF'), 'something else'),
    ('negative', encoded(Image.fromarray(np.full((7, 9), -1, np.int32)), 'TIFF'), 'something else'), ('PNG of no width', png(0, 7, 8, 2, b''), 'something else'), ('a wrong checksum', encoded(IM).replace(b'IDAT', b'IDAU'), 'something else'),
    ('a text that unpacks to 100 MB', png(1, 1, 8, 2, bytes(4), extra=(lambda d: struct.pack('>I', len(d))+b'zTXt'+d+struct.pack('>I', zlib.crc32(b'zTXt'+d)))(b'a\0\0'+zlib.compress(bytes(10**8)))), 'something else')]
CASES += [f'picture: {n}' for n,*_ in PICTURES+BROKEN]

@pytest.mark.parametrize('data,right', [pytest.param(*r[1:], id=r[0]) for r in PICTURES])
def test_picture(tmp_path, data, right):
    "Every kind of picture is what a viewer shows."
    (tmp_path/'a.jpg').write_bytes(data)
    im = open_image(tmp_path/'a.jpg')
    assert im.mode == 'RGB' and right(np.asarray(im))

@pytest.mark.parametrize('data,why', [pytest.param(*r[1:], id=r[0]) for r in BROKEN])
def test_broken_picture(folder, monkeypatch, data, why):
    "Refused, from a folder and alone; what is too large is so before it is decoded."
    if why == LARGE: monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda self: pytest.fail('decoded'))
    file = folder/'images'/'03.png'
    file.write_bytes(data)
    refused(lambda: open_image(file), '03.png', f'found {why};')
    if why == LARGE: return
    name = '03.png (no file)' if why == 'no file' else '03.png'
    refused(lambda: check_images(read_folder(folder)), f"found 1 of 10 that can't: {name}; replace the files")

def test_all_offenders(folder, says, tmp_path):
    "Ten are named, with their total."
    for i in range(8): (folder/'images'/f'{i:02}.png').write_text('no picture')
    (folder/'images'/'08.png').write_bytes(png(30_000, 30_000, 8, 2, bytes(9)))
    text = refused(lambda: check_images(read_folder(folder)), "found 9 of 10 that can't: 00.png, 01.png", f'08.png ({LARGE}) (9 in all)')
    says(text, *extract(folder, tmp_path))

def means(d=3):
    from laso.features.backbones import Backbone
    class Means(torch.nn.Module):
        def __init__(self): super().__init__(); self.p = torch.nn.Parameter(torch.zeros(1))
        def forward(self, x): return x.mean((2, 3)) + 0*self.p
    return Backbone(Means(), 'means', size=8)

def test_turned_pictures_have_the_features_of_upright_ones(folder):
    "Through every way from a file to a network: features, fine-tuning, jitter, thumbnails."
    from laso.features.extract import extract as features, to_bytes
    data = read_folder(folder)
    upright = Image.open(folder/'images'/'00.png').transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x112] = 6   # is turned by 270 degrees to be upright
    upright.save(folder/'images'/'00.png', exif=exif)
    want = np.asarray(upright.transpose(Image.Transpose.ROTATE_270))
    assert (np.asarray(read_folder(folder).open(0)) == want).all() and (to_bytes(Image.open(folder/'images'/'00.png'), 6) == to_bytes(data.open(0), 6)).all()
    ds = classifier_dls(read_folder(folder), 8).train_ds
    assert (ds[0][0].permute(2, 0, 1) == to_bytes(Image.fromarray(want), 8)).all()

# --skip-bad

def some_bad(folder, more=()):
    write_table(folder, [*LINES, *more, 'x.png,dog cat,False', 'y.png,bird,True'])
    (folder/'images'/'x.png').write_text('no picture')
    (folder/'images'/'y.png').write_bytes(png(30_000, 30_000, 8, 2, bytes(9)))
    return folder

def test_skip_bad(folder, capsys):
    data = skip_bad(read_folder(some_bad(folder)))
    assert capsys.readouterr().err == f'laso: left out 2 of 12 images: x.png, y.png ({LARGE}) (2 in all)\n'
    want = read_folder(folder) if write_table(folder) is None else None
    assert data.fnames == want.fnames and (data.labels == want.labels).all() and data.fingerprint() == want.fingerprint()
    check_images(data)
    assert capsys.readouterr().err.endswith('that labels.csv does not list: 2 .png\n')
    assert skip_bad(want) is want and not capsys.readouterr().err

def test_skip_bad_leaves_too_few(folder, laso, tmp_path):
    for i in range(2): (folder/'images'/f'{i:02}.png').write_text('no picture')
    status,out,err = laso(*extract(folder, tmp_path), '--skip-bad')
    assert status == 2 and not out and err.splitlines()[0] == 'laso: left out 2 of 10 images: 00.png, 01.png (2 in all)'
    assert 'at least 5 training images' in sentence(err.splitlines()[1].removeprefix('laso: '))

def scored(folder, labels='dog cat,bird cat cow,dog bird,cow dog,bird'):
    "More validation pictures and a second novel class, so that all can be scored, and two pictures that can't be read."
    labels = labels.split(',')
    for i in range(10, 30): picture(i).save(folder/'images'/f'v{i}.png')
    some_bad(folder, [*[f"v{i}.png,{labels[i % 5]},True" for i in range(10, 20)], *[f'v{i}.png,cow,False' for i in range(20, 30)]])
    (folder/'novel.txt').write_text('cat\ncow\n')

@pytest.mark.parametrize('labels,parts', [('dog,bird cat,dog,cow cat,bird', ['pairs in which x shows what y does not', 'seen classes, for validation']), ('dog cow,dog,bird,bird dog,dog', ['at least 8 validation images of unseen classes, found 4;'])])
def test_what_cant_be_scored(folder, laso, tmp_path, labels, parts):
    "Found out before the backbone is trained."
    scored(folder, labels)
    for o in 'x.png', 'y.png': picture().save(folder/'images'/o)
    from laso.bench.run import BenchConfig, features_for
    text = refused(lambda: features_for(BenchConfig(str(folder), n_pairs=20), scored=True, expressions=True), *parts)
    status,out,err = laso('bench', '--data', folder, '--n-pairs', 20, '--out', tmp_path/'out')
    assert (status, out, err.splitlines()) == (2, '', [f'laso: {text}']) and not [*tmp_path.glob('cache/*')]

@pytest.mark.parametrize('command', ['extract', 'bench'])
def test_skip_bad_commands(folder, laso, tmp_path, command):
    short = ['--n-pairs', 20, '--ops', 'analytic'] if command == 'bench' else []
    scored(folder)
    status,out,err = laso(command, *extract(folder, tmp_path)[1:], '--size', 32, '--episodes', 1, *short, '--skip-bad')
    assert status == 0, err
    assert 'laso: left out 2 of 32 images: x.png, y.png' in err
    if command == 'extract': assert len(load_features(tmp_path/'out'/'features')) == 30
    else: assert json.loads((tmp_path/'out'/'results.json').read_text())['config']['skip_bad'] is True

def test_skip_bad_of_taggers(folder, laso, tmp_path):
    some_bad(folder)
    where = ('--backbone', 'test_efficientnet', '--weights', 'random', '--size', 32, '--plain', '--out', tmp_path/'my.tagger')
    assert laso('teach', folder, *where)[0] == 2
    status,out,err = laso('teach', folder, *where, '--skip-bad')
    assert status == 0 and 'laso: left out 1 of 9 images' in err and 'from 8 images' in out, err   # y.png is for validation
    status,out,err = laso('tag', tmp_path/'my.tagger', folder/'images')
    assert status == 2 and "2 of 12 that can't" in sentence(err.strip().removeprefix('laso: '))
    status,out,err = laso('tag', tmp_path/'my.tagger', folder/'images', '--skip-bad', '--csv', tmp_path/'t.csv')
    assert status == 0 and 'left out 2 of 12 images' in err and len(out.splitlines()) == 10
    assert len([*csv.DictReader((tmp_path/'t.csv').open())]) == 10

# Features and support sets

N,D = 40,6
VOCAB = ['dog', 'cat', 'bird']

def toy(n=N, d=D, seed=0):
    "Features that hold their labels; `bird` is novel, every fourth row is for validation."
    rng = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, 3, generator=rng) < .5).float()
    labels[:3],labels[3] = torch.eye(3),1
    x = torch.cat([labels, torch.rand(n, d-3, generator=rng)], 1)
    return FeatureTable(x, labels, VOCAB, torch.arange(n) % 4 == 3, torch.tensor([0, 0, 1]), meta=dict(data='toy'))

def views_of(t, sets):
    rows = torch.cat([s.rows for s in sets]).unique()
    pairs = torch.cat([s.rows[:1].repeat(4, 2) for s in sets])
    return Views.of(sets, rows, t.x[rows][:,None].repeat(1, 2, 1), pairs, torch.full((len(pairs),), .5), t.x[pairs[:,0]])

@pytest.fixture(scope='module')
def good_run(tmp_path_factory):
    path = tmp_path_factory.mktemp('run')/'run'
    t = toy()
    t.save(path/'features')
    set_ops('mixture', D, h=4).save(path)
    views_of(t, support_sets(t, n_shots=(1, 2), n_eps=2)).save(path/'views.safetensors')
    return path

@pytest.fixture
def run(good_run, tmp_path): return shutil.copytree(good_run, tmp_path/'run')

def npy(f):
    "Other features, in a folder that does not say what they were."
    def change(run):
        np.save(run/'features'/'features.npy', f(toy().x.numpy().copy()))
        about = json.loads((run/'features'/'features.json').read_text())
        about.pop('digest', None)
        (run/'features'/'features.json').write_text(json.dumps(about))
    return change
def cell(i, j, v):
    def f(x): x[i,j] = v; return x
    return npy(f)
def js(**kw):
    def f(run):
        file = run/'features'/'features.json'
        o = json.loads(file.read_text())
        o.pop('digest', None)
        file.write_text(json.dumps({**o, **{k: v(o[k]) if callable(v) else v for k,v in kw.items()}}))
    return f
def bytes_of(name, b): return lambda run: (run/name).write_bytes(b)
def js_raw(t): return bytes_of('features/features.json', t.encode())
ALL_TRAIN,ALL_VALID = [False]*N,[True]*N
NO_BIRD = lambda ls: [[c for c in l if c != 2] for l in ls]

FEATURES = [
    ('NaN', cell(4, 1, np.nan), ['finite features', 'found others in row 4;']), ('infinity', cell(5, 0, np.inf), ['row 5;']), ('minus infinity', cell(6, 0, -np.inf), ['row 6;']), ('1e20', cell(7, 2, 1e20), ['below 1e15', 'row 7;']), ('all NaN', npy(lambda x: x*np.nan), ['row 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (40 in all)']),
    ('wrong width', npy(lambda x: x[:,:0]), ['shape (40, d), found (40, 0)']), ('another width than the operators', npy(lambda x: x[:,:4]), ['width 4', '6']), ('a row too few', npy(lambda x: x[:-1]), ['shape (40, d), found (39, 6)']), ('a row too many', npy(lambda x: np.concatenate([x, x[:1]])), ['found (41, 6)']),
    ('one dimension', npy(lambda x: x[:,0]), ['found (40,)']), ('three dimensions', npy(lambda x: x[None]), ['found (1, 40, 6)']), ('zero variance', npy(lambda x: x*0+3), ['tell images apart', 'the same for all 40']), ('all zero', npy(lambda x: x*0), ['the same for all 40']),
    ('float64', npy(lambda x: x.astype(np.float64)), ['float32 or float16, found float64']), ('integers', npy(lambda x: x.astype(int)), ['found int64']), ('complex', npy(lambda x: x.astype(complex)), ['found complex128']), ('text', npy(lambda x: x.astype(str)), ['float32 or float16']),
    ('big endian', npy(lambda x: x.astype('>f4')), ['float32 or float16']), ('booleans', npy(lambda x: x > .5), ['found bool']), ('no rows', npy(lambda x: x[:0]), ['found (0, 6)']), ('cut off', lambda run: bytes_of('features/features.npy', (run/'features/features.npy').read_bytes()[:-9])(run), ['array of numbers']),
    ('empty file', bytes_of('features/features.npy', b''), ['array of numbers']), ('text file', bytes_of('features/features.npy', b'1,2,3'), ['array of numbers']), ('no features.npy', gone('features/features.npy'), ['found no features.npy']), ('no features.json', gone('features/features.json'), ['found no features.json']),
    ('no JSON', js_raw('labels'), ['labels of the features']), ('JSON cut off', js_raw('{"labels": [[0]'), ['labels of the features']), ('JSON a list', js_raw('[]'), ['labels of the features']), ('no labels in it', js_raw('{}'), ['labels of the features']), ('deep JSON', js_raw('['*10**5), ['labels of the features']),
    ('NaN in JSON', js_raw('{"labels": NaN}'), ['labels of the features']), ('JSON in UTF-16', lambda run: bytes_of('features/features.json', b'\xff\xfe{}')(run), ['labels of the features']), ('labels beyond the classes', js(labels=[[9]]*N), ['3 known classes, found 9;']), ('negative labels', js(labels=[[-1]]*N), ['found -1;']),
    ('labels that are words', js(labels=[['dog']]*N), ['found dog;']), ('labels too few', js(labels=lambda l: l[:-1]), ['found']), ('labels a number', js(labels=3), ['labels of the features']), ('labels null', js(labels=None), ['labels of the features']), ('a class twice', js(vocab=['dog', 'cat', 'dog']), ['each class once']),
    ('a class too few', js(vocab=['dog', 'cat']), ['2 known classes, found 2;']), ('a class too many', js(vocab=[*VOCAB, 'cow']), ['novel of shape (4,), found (3,)']), ('a class that is a number', js(vocab=['dog', 'cat', 3]), ['labels of the features']), ('names too few', js(fnames=['a']), ['fnames of shape (40,), found (1,)']),
    ('names that are numbers', js(fnames=[*range(N)]), ['labels of the features']), ('is_valid too short', js(is_valid=[True]), ['is_valid of shape (40,), found (1,)']), ('is_valid of words', js(is_valid=['yes']*N), ['labels of the features']), ('novel too short', js(novel=[True]), ['novel of shape (3,)']), ('meta a number', js(meta=3), ['labels of the features']),
    ('empty validation split', js(is_valid=ALL_TRAIN), ['expected validation images, found none among 40']), ('empty training split', js(is_valid=ALL_VALID), ['expected training images, found none among 40']), ('no novel class', js(novel=[False]*3), ['no novel class']), ('no base class', js(novel=[True]*3), ['no base class']),
    ('no example of the novel class', js(labels=NO_BIRD), ['every novel class', 'bird 0']), ('novel class not in validation', js(labels=lambda ls: [[c for c in l if c != 2 or i % 4 != 3] for i,l in enumerate(ls)]), ['validation image of every novel class', 'bird']), ('base class not in training', js(labels=lambda ls: [[c for c in l if c != 0 or i % 4 == 3] for i,l in enumerate(ls)]), ['every base class', 'dog']),
]

@cases('features', *FEATURES)
def test_features(run, laso, tmp_path, change, parts):
    "Refused by every command that reads them, which leaves all files as they were."
    change(run)
    def read():
        t = load_features(run/'features')
        check_classes(t, n_shot=1)
        if t.width != D: raise InputError('expected width, found other; skip')
    with pytest.raises(InputError) as e: read()
    before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    for command in ('train', 'evaluate', 'retrieve', 'fewshot'):
        if command == 'train' and 'width 4' in parts: continue   # operators are trained anew, of any width
        status,out,err = laso(command, run)
        assert status == 2 and not out and err.count('\n') == 1, err
        text = sentence(err.strip().removeprefix('laso: '))
        for o in parts: assert o in text, text
        if 'width 4' not in parts: assert text == str(e.value)
    assert {p: p.read_bytes() for p in run.rglob('*') if p.is_file()} == before

def change_views(**kw):
    def f(run):
        v = Views.load(run/'views.safetensors')
        for k,g in kw.items(): setattr(v, k, g(getattr(v, k)))
        v.save(run/'views.safetensors')
    return f

def remove(k):
    def f(run):
        v = Views.load(run/'views.safetensors')
        delattr(v, k)
        v.save(run/'views.safetensors')
    return f

VIEWS = [
    ('none', gone('views.safetensors'), ['found no file', 'laso extract']), ('text', bytes_of('views.safetensors', b'text'), ['views of support sets', 'something else']), ('a part is absent', remove('jitter'), ['something else']),
    ('NaN', change_views(jitter=lambda x: x*np.nan), ['something else']), ('integers in the place of features', change_views(jitter=lambda x: x.long()), ['something else']), ('rows that are fractions', change_views(rows=lambda x: x.float()), ['something else']),
    ('another width', change_views(jitter=lambda x: x[...,:4].contiguous(), mix_x=lambda x: x[:,:4].contiguous()), ['views of width 6, found 4']), ('widths that differ', change_views(mix_x=lambda x: x[:,:4].contiguous()), ['something else']),
    ('rows beyond the table', change_views(sets=lambda s: torch.where(s[:,:] == s[0,3], 10**6, s)), ['support sets of the 40 rows', 'rows 1000000']), ('negative rows', change_views(sets=lambda s: torch.cat([s[:,:3], s[:,3:]-9], 1)), ['something else']),
    ('sets of no rows', change_views(sets=lambda s: s[:,:3].contiguous()), ['something else']), ('sets that lack the class', change_views(sets=lambda s: torch.cat([s[:,:3], torch.zeros_like(s[:,3:4])], 1)), ['an example of every novel class', 'bird in set 0', '4 in all']),
    ('another number of mixtures', change_views(mix_lam=lambda l: l[:-1].clone()), ['something else']), ('views of other rows', change_views(rows=lambda r: (r+1).clone()), ['those of other sets']),
]

@cases('views', *VIEWS)
def test_views(run, laso, change, parts):
    change(run)
    status,out,err = laso('fewshot', run)
    assert status == 2 and not out and err.count('\n') == 1, err
    for o in parts: assert o in sentence(err.strip().removeprefix('laso: ')), err

def fresh(**kw):
    t = toy()
    for k,v in kw.items(): setattr(t, k, v)
    return t
def sets_of(*rows): return [Support(1, i, torch.tensor(r)) for i,r in enumerate(rows)]
valid_rows = torch.arange(N) % 4 == 3

SUPPORT = [
    ('lacks a class', lambda: fewshot(toy(), sets=sets_of([0, 1])), ['none of bird in set 0;']), ('two lack a class', lambda: fewshot(toy(), sets=sets_of([0], [2], [1])), ['bird in set 0, bird in set 2 (2 in all)']), ('row beyond', lambda: fewshot(toy(), sets=sets_of([2, 99])), ['rows 99;']),
    ('negative row', lambda: fewshot(toy(), sets=sets_of([2, -1])), ['rows -1;']), ('more shots than there are', lambda: support_sets(toy(), n_shots=(1, 99)), ['at least 99 training images', 'bird']), ('no validation rows', lambda: fewshot(fresh(is_valid=torch.zeros(N, dtype=bool))), ['expected validation images']),
    ('evaluation without validation rows', lambda: evaluate(fresh(is_valid=torch.zeros(N, dtype=bool)), {}), ['expected validation images']), ('evaluation without novel classes', lambda: evaluate(fresh(novel=torch.zeros(3, dtype=bool)), {}), ['no novel class']),
    ('learner without training rows', lambda: ops_learner(fresh(is_valid=torch.ones(N, dtype=bool))), ['expected training images']), ('learner without base classes', lambda: ops_learner(fresh(novel=torch.ones(3, dtype=bool))), ['no base class']),
    ('features of zeros to learn from', lambda: evaluate(fresh(x=toy().x*(torch.arange(N) % 4 == 3)[:,None]), {}), ['features other than zero, found none in the 30 rows']), ('features next to zero', lambda: ops_learner(fresh(x=toy().x*1e-30)), ['features other than zero']),
    ('features NaN', lambda: FeatureTable(toy().x*np.nan, toy().labels, VOCAB, valid_rows, [0, 0, 1]), ['finite features']), ('features a list', lambda: FeatureTable([[1.]], toy().labels, VOCAB, valid_rows, [0, 0, 1]), ['found list']), ('labels of a half', lambda: FeatureTable(toy().x, toy().labels/2, VOCAB, valid_rows, [0, 0, 1]), ['labels of 0 and 1']),
    ('labels NaN', lambda: FeatureTable(toy().x, toy().labels*np.nan, VOCAB, valid_rows, [0, 0, 1]), ['labels of 0 and 1']), ('unknown class in labels', lambda: multi_hot([['cow']], VOCAB), ['found cow;']), ('a class twice', lambda: FeatureTable(toy().x, toy().labels, ['dog', 'dog', 'cat'], valid_rows, [0, 0, 1]), ['more than one dog']),
    ('tags for fewer pictures', lambda: FewShotTagger.teach([IM, IM], [['a']], backbone=means(), ops=None), ['tags for each of 2 images, found 1']), ('tags that are text', lambda: FewShotTagger.teach([IM], ['dog'], backbone=means(), ops=None), ['list of names']), ('no tag', lambda: FewShotTagger.teach([IM], [[]], backbone=means(), ops=None), ['at least one tag']),
    ('no pictures', lambda: FewShotTagger.teach([], [], backbone=means(), ops=None), ['at least one image']), ('an array that is none', lambda: FewShotTagger.teach([np.zeros((2, 2, 7))], [['a']], backbone=means(), ops=None), ['image 0']), ('one array of fractions', lambda: FewShotTagger.teach([np.random.rand(5, 5).astype(np.float32)], [['a']], backbone=means(), ops=None), ['image 0']),
]

@cases('Python', *SUPPORT)
def test_python(change, parts): refused(change, *parts)

# Generated

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
LONG = settings(FUZZ, max_examples=3000)

def read_or_refuse(f):
    "Either it works, or `InputError` with one sentence."
    try: f()
    except InputError as e: sentence(str(e))

def mutate(data, b):
    "Some bytes of `b` replaced, removed, doubled."
    b = bytearray(b)
    for _ in range(data.draw(st.integers(1, 6))):
        i = data.draw(st.integers(0, max(0, len(b)-1)))
        kind = data.draw(st.sampled_from(['set', 'cut', 'del', 'dup', 'text']))
        if kind == 'set' and b: b[i] = data.draw(st.integers(0, 255))
        elif kind == 'cut': del b[i:]
        elif kind == 'del': del b[i:i+data.draw(st.integers(1, 9))]
        elif kind == 'dup': b[i:i] = b[i:i+40]
        else: b[i:i] = data.draw(st.sampled_from([b'"', b',', b'\n', b'\r', b'\0', b'..', b'/', b'NaN', b'1e999', b'[', b'{', b'null', b'-1', b'\xff', 'é'.encode(), b'\x1b[2J', b' ']))
    return bytes(b)

def fuzz_csv(data, folder):
    (folder/'labels.csv').write_bytes(mutate(data, '\n'.join([COLS, *LINES]).encode()))
    read_or_refuse(lambda: read_folder(folder))
    read_or_refuse(lambda: read_taught(folder))

def fuzz_coco(data, coco):
    (coco/'annotations'/'instances_train2017.json').write_bytes(mutate(data, json.dumps(coco_json('train', 6)).encode()))
    read_or_refuse(lambda: read_coco(coco, n_shot=1))

def fuzz_picture(data, tmp_path):
    fmt = data.draw(st.sampled_from(['PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'PPM']))
    (tmp_path/'a').write_bytes(mutate(data, encoded(P if fmt == 'GIF' else IM, fmt)))
    read_or_refuse(lambda: open_image(tmp_path/'a'))

def fuzz_features(data, run):
    name = data.draw(st.sampled_from(['features.npy', 'features.json']))
    b = (run/'features'/name).read_bytes()
    c = re.sub(rb', "digest": "\w+"', b'', b)   # which would refuse all of them
    try:
        (run/'features'/name).write_bytes(mutate(data, c[:4000]) + c[4000:])
        read_or_refuse(lambda: check_classes(load_features(run/'features'), n_shot=1))
    finally: (run/'features'/name).write_bytes(b)

def fuzz_tables(data, run):
    "Small tables of any labels and splits through the commands' own functions."
    from laso.bench import run as b
    n,n_lbl = data.draw(st.integers(2, 30)),data.draw(st.integers(2, 4))
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    labels = (torch.rand(n, n_lbl, generator=rng) < data.draw(st.sampled_from([.1, .3, .6, 1.]))).float()
    x = torch.rand(n, data.draw(st.integers(1, 5)), generator=rng).round(decimals=data.draw(st.integers(0, 4)))
    def all_of_it():
        t = FeatureTable(x, labels, [*'abcd'[:n_lbl]], torch.rand(n, generator=rng) < .4, torch.arange(n_lbl) < data.draw(st.integers(0, n_lbl)))
        check_classes(t, n_shot=1)
        cfg = b.BenchConfig(n_pairs=10)
        b.evaluate_all(t, set_ops('analytic', t.width), cfg)
        fewshot(t, sets=support_sets(t, n_shots=(1,), n_eps=2))
    read_or_refuse(all_of_it)

@pytest.fixture
def coco(good_coco, tmp_path):
    path = shutil.copytree(good_coco, tmp_path/'coco', symlinks=True)
    return path

@pytest.fixture
def places(folder, coco, run, tmp_path): return dict(csv=folder, coco=coco, picture=tmp_path, features=run, tables=run)
FUZZERS = dict(csv=fuzz_csv, coco=fuzz_coco, picture=fuzz_picture, features=fuzz_features, tables=fuzz_tables)
CASES += [f'generated: {k} {i}' for k in FUZZERS for i in range(FUZZ.max_examples)]

@pytest.mark.parametrize('kind', FUZZERS)
def test_generated(places, kind):
    @FUZZ
    @given(st.data())
    def f(data): FUZZERS[kind](data, places[kind])
    f()

@pytest.mark.slow
@pytest.mark.parametrize('kind', FUZZERS)
def test_generated_long(places, kind):
    @LONG
    @given(st.data())
    def f(data): FUZZERS[kind](data, places[kind])
    f()

def test_number_of_cases():
    "More than 200 by hand alone."
    assert len(set(CASES)) == len(CASES) and len([o for o in CASES if not o.startswith('generated')]) >= 200, len(CASES)

# The real command

SAMPLE = ['UTF-16', 'eleven absent', '..', 'one class', 'a name with an escape', 'novel.txt in Latin-1', 'no folder']

@pytest.mark.parametrize('name', ['a damaged TIFF', *(pytest.param(o, marks=pytest.mark.slow) for o in SAMPLE)])
def test_real_command(folder, tmp_path, name):
    "A sample in a process of its own: the same status and sentence."
    damaged = 'a damaged TIFF',raw(encoded(IM, 'TIFF')[:40], 'images/03.png'),["1 of 10 that can't: 03.png;"]   # PIL warns of it
    change,parts = next(r[1:] for r in (*FOLDERS, damaged) if r[0] == name)
    change(folder)
    env = dict(os.environ, LASO_CACHE=str(tmp_path/'cache'))
    p = subprocess.run([sys.executable, '-c', 'from laso.cli import main; main()', *map(str, extract(folder, tmp_path))], env=env, capture_output=True, text=True, timeout=120)
    assert p.returncode == 2 and not p.stdout and p.stderr.count('\n') == 1, p.stderr
    for o in parts: assert o in sentence(p.stderr.strip().removeprefix('laso: '))
