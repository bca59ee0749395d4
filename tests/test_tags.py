"Tags with any letters, folders that are no tags, files that are no examples, and threads that teach at once."
import csv, os, random, re, sys, threading
import numpy as np
import pandas as pd
import pytest, torch
from helpers import image
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from unicodedata import normalize
from laso.core import InputError, label_names
from laso.data.folder import read_folder, read_table
from laso.data.tables import split_labels
from laso.data.layouts import load_data
from laso.features.table import toy_table
from laso.features.heads import fit_linear
from laso.store import cache_dir
from laso.tag import images, tagger
from laso.tag.head import TagHead
from laso.tag.images import find_images, ImageList, read_taught
from laso.tag.start import scenes_ops
from laso.tag.tagger import FewShotTagger, load_tagger, write_tags

SMALL = '--backbone test_efficientnet --weights random --size 32'.split()

def folder(path, **images):
    "A folder with these numbers of images: tag=2."
    for t,n in images.items():
        for i in range(n):
            (path/t).mkdir(parents=True, exist_ok=True)
            image(f'{t}{i}'.encode()[0]*100+i).save(path/t/f'{t[:5]}{i}.png')
    return path

ODD = ['کتاب‌ها', '👨‍👩‍👧', 'no\xa0break', '犬\u3000小', 'Straßen\xadbahn', 'tab\there', 'hot dog', '"quoted"', 'labels', 'fname', 'is_valid',
       '=1+1', '@home', '-5', 'a\\b', "it's", 'a,b', 'a;b', '\u202eright to left', 'a'*200]

def check_round_trip(tags, backbone, path):
    "What is taught can be read, from the tagger and from the table; or it was refused."
    images = [image(i) for i in range(len(tags)+1)]
    for i,im in enumerate(images):
        (path/'images').mkdir(exist_ok=True)
        im.save(path/'images'/f'{i}.png')
    try: t = FewShotTagger.teach(images, [*([o] for o in tags), []], backbone=backbone, ops=None, show=False)
    except InputError as e: return str(e)
    assert t.tags == sorted({normalize('NFC', o) for o in tags})
    assert load_tagger(t.export(path/'t')).tags == t.tags
    chosen = [{normalize('NFC', o): 1.} for o in tags]
    write_tags(path/'labels.csv', [f'{i}.png' for i in range(len(tags))], t.tags, chosen, np.ones((len(tags), len(t.tags))))
    assert read_taught(path)[1] == [list(o) for o in chosen] == [split_labels(r['labels']) for r in read_table(path/'labels.csv')[0]]
    cols = list(pd.read_csv(path/'labels.csv'))
    assert len({*cols}) == len(cols) == 2+len(t.tags) and not any(c[0] in '=+-@' for c in cols)

def test_odd_tags(backbone, tmp_path): assert check_round_trip(ODD, backbone, tmp_path) is None

@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=12), min_size=1, max_size=5))
def test_any_tags(backbone, tmp_path, tags):
    found = check_round_trip(tags, backbone, tmp_path)
    assert found is None or found.startswith('expected ') and found.isprintable()

@pytest.mark.parametrize('tag', ['', ' ', '\u3000', 'a'*201, '\ud800', 'a\udcff', 'a\nb', '\x1b[2J', 'a\0'])
def test_refused_before_the_work(tag, backbone, monkeypatch):
    def work(*args, **kwargs): raise AssertionError('worked')
    monkeypatch.setattr(tagger, 'features_of', work)
    with pytest.raises(InputError, match='^expected ') as e: FewShotTagger.teach([image(0)]*2, [['a'], [tag]], backbone=backbone, ops=None)
    assert str(e.value).isprintable()

def test_composed_and_decomposed_folders_are_one_tag(tmp_path):
    folder(tmp_path, **{'caf\xe9': 1, 'cafe\u0301': 2, 'dog': 1})
    if len(list(tmp_path.iterdir())) < 3: pytest.skip('a file system that knows them as one')
    labels = read_taught(tmp_path)[1]
    assert sorted(map(tuple, labels)) == [('caf\xe9',)]*3+[('dog',)]

def test_a_name_that_is_no_text(tmp_path):
    try: os.makedirs(os.fsencode(tmp_path)+b'/\xff')
    except OSError: pytest.skip('a file system of text')
    image(0).save(os.fsencode(tmp_path)+b'/\xff/a.png')
    with pytest.raises(InputError, match='^expected tags'): read_taught(tmp_path)

def test_from_folder_to_table(tmp_path, laso):
    "Names are as they are in the tagger and its table, and escaped where they are printed."
    folder(tmp_path/'d', **{'hot dog': 2, 'hot': 2, 'کتاب‌ها': 2, 'labels': 2})
    status,out,err = laso('teach', tmp_path/'d', *SMALL, '--plain', '--out', tmp_path/'t')
    assert status == 0 and not err and all(re.search(rf'(?m)^{re.escape(o)}: \w+, 2 examples', out) for o in ('hot', 'hot dog', 'labels', r'کتاب\u200cها')), (out, err)
    status,out,err = laso('tag', tmp_path/'t', tmp_path/'d', '--csv', tmp_path/'out.csv')
    assert status == 0 and not err and '\u200c' not in out
    rows = list(csv.DictReader(open(tmp_path/'out.csv', encoding='utf8')))
    assert list(rows[0]) == ['fname', 'labels', 'hot', 'hot dog', '"labels"', 'کتاب‌ها']
    for r in rows: assert set(r['labels'].replace('"hot dog"', 'hot_dog').split()) <= {'hot_dog', 'hot', 'labels', 'کتاب‌ها'}

def test_tags_are_classes(tmp_path):
    "What `laso tag` wrote is a table for `laso bench`, whatever images and tags are called."
    tags,n = ['-5', '=1+1', '@home', "'=x", 'a,b', 'hot', 'hot dog', "it's", 'labels', '"quoted"'],40
    fnames = [f"{'=+-@'[i % 4]}{i}.png" for i in range(n)]
    (tmp_path/'images').mkdir()
    for i,o in enumerate(fnames): image(i).save(tmp_path/'images'/o)
    chosen = [{tags[i % len(tags)]: 1., tags[i//4 % len(tags)]: .9} for i in range(n)]
    write_tags(tmp_path/'labels.csv', fnames, tags, chosen, np.ones((n, len(tags))))
    cells = [c for r in csv.reader(open(tmp_path/'labels.csv', encoding='utf8', newline='')) for c in r]
    assert not [c for c in cells if c[:1] in tuple('=+-@')]
    for novel in '', 'hot dog\n=1+1\n':
        if novel: (tmp_path/'novel.txt').write_text(novel)
        data = load_data(tmp_path, seed=1)
        assert data.vocab == sorted(tags) and data.fnames == fnames
        assert [{*label_names(r, data.vocab)} for r in data.labels] == [{*o} for o in chosen]
    assert data.novel_vocab == ['=1+1', 'hot dog']
    (tmp_path/'classes.txt').write_text('\n'.join(tags))
    assert load_data(tmp_path, seed=1).vocab == tags

def test_quotes_that_do_not_end(tmp_path):
    "Refused, unless classes.txt says that they are letters of a name."
    (tmp_path/'images').mkdir()
    for i in range(20): image(i).save(tmp_path/'images'/f'{i}.png')
    (tmp_path/'labels.csv').write_text('fname,labels\n'+''.join(f'{i}.png,"""hot dog{" cat"*(i % 2)}"\n' for i in range(20)))
    with pytest.raises(InputError, match='found "hot dog; correct the quotes'): read_folder(tmp_path, n_shot=1)
    (tmp_path/'classes.txt').write_text('"hot\ndog\ncat')
    assert read_folder(tmp_path, n_shot=1).vocab == ['"hot', 'dog', 'cat']

@pytest.mark.parametrize('subs', [('train', 'valid', 'test'), ('train', 'val'), ('images', 'labels'), ('train',), ('images',), ('cat', 'dog', 'test'),
                                  ('Train', 'Validation'), ('train2017', 'val2017'), ('JPEGImages', 'Annotations')])
def test_parts_of_a_data_set(subs, tmp_path, laso):
    folder(tmp_path, **{o: 1 for o in subs})
    status,out,err = laso('teach', tmp_path, *SMALL, '--out', tmp_path/'t')
    assert status == 2 and err.count('\n') == 1 and 'expected a sub-folder of images for each tag' in err and 'look like parts' in err

@pytest.mark.parametrize('subs', [('train', 'boat'), ('labels', 'cat'), ('testament', 'value')])
def test_tags_named_like_parts(subs, tmp_path): assert sorted(map(tuple, read_taught(folder(tmp_path, **{o: 1 for o in subs}))[1])) == sorted((o,) for o in subs)

def test_imagenet_names_the_part(tmp_path):
    for o in ('train', 'val'): folder(tmp_path/o, red=1, green=1)
    with pytest.raises(InputError, match=f"give {tmp_path/'train'}"): read_taught(tmp_path)

def test_hidden_files_are_no_examples(tmp_path, capsys):
    folder(tmp_path, red=3, green=3)
    for o in ('red/._red0.png', 'red/.ipynb_checkpoints/red0-checkpoint.png', '__MACOSX/red/._red0.png', 'green/@eaDir/g.png/THUMB.jpg', '.hidden/a.png'):
        (tmp_path/o).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/o).write_bytes((tmp_path/'red'/'red0.png').read_bytes())
    paths,labels,_ = read_taught(tmp_path)
    assert len(paths) == 6 and {t for l in labels for t in l} == {'red', 'green'} and not capsys.readouterr().err
    assert len(find_images(tmp_path)) == 6

def test_other_formats_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(images, 'formats', lambda: ())   # a machine without HEIC and AVIF
    monkeypatch.setattr(images, 'more_suffixes', set)
    folder(tmp_path, red=1, green=1)
    for o in ('jfif', 'jpe', 'ppm'): image(1).save(tmp_path/'red'/f'a.{o}', format='PPM' if o == 'ppm' else 'JPEG')
    for o in ('1.HEIC', '2.heic', 'web.avif', 'noise'): (tmp_path/'red'/o).touch()
    (tmp_path/'red'/'broken.jpg').symlink_to('nowhere')
    image(2).save(tmp_path/'loose.png')
    paths = read_taught(tmp_path)[0]
    assert len(paths) == 5 and all(ImageList(paths)[i].size == (32, 32) for i in range(5))
    err = capsys.readouterr().err
    assert '5 files that are not read as images: 2 .heic, 1' in err and '1 .avif' in err and '1 broken links' in err and '1 images beside' in err
    only = tmp_path/'only'
    (only/'red').mkdir(parents=True); (only/'red'/'a.heic').touch()
    with pytest.raises(InputError, match='but 1 .heic'): read_taught(only)

def broken(file):
    file.write_bytes(b'no image')
    return file

def test_no_example_that_can_be_opened(tmp_path, laso):
    "One sentence, for a new tagger and for more of an old one."
    folder(tmp_path/'d', red=2, green=2)
    assert laso('teach', tmp_path/'d', *SMALL, '--plain', '--out', tmp_path/'t')[0] == 0
    for p in (tmp_path/'d').rglob('*.png'): broken(p)
    for more in ([*SMALL, '--plain', '--out', tmp_path/'u'], ['--add', tmp_path/'t']):
        status,_,err = laso('teach', tmp_path/'d', '--skip-bad', *more)
        assert status == 2 and 'left out 4 of 4 images' in err and 'expected at least one image, found none' in err

def test_untagged_images(tmp_path, laso):
    "Those that can't be opened are left out with --skip-bad and refused without; none at all is refused."
    folder(tmp_path/'d', red=2, green=2)
    folder(tmp_path, pool=3)
    broken(tmp_path/'pool'/'broken.png')
    args = 'teach', tmp_path/'d', *SMALL, '--plain', '--out', tmp_path/'t', '--pool', tmp_path/'pool'
    status,_,err = laso(*args)
    assert status == 2 and 'broken.png' in err and '--skip-bad' in err
    status,out,err = laso(*args, '--skip-bad')
    assert status == 0 and '4 images and 3 untagged ones' in out and 'left out 1 of 4 images: broken.png' in err.replace(f"{tmp_path/'pool'}/", ''), (out, err)
    (tmp_path/'empty').mkdir()
    status,_,err = laso(*args[:-1], tmp_path/'empty')
    assert status == 2 and f"expected images in {tmp_path/'empty'}, found none" in err

@pytest.mark.parametrize('args,said', [
    ('DIR --add t --pool DIR', '--pool'), ('DIR --add t --plain', '--plain'), ('DIR --add t --no-names', '--no-names'), ('DIR --add t --size 64', '--size'),
    ('DIR --run r --backbone resnet18', '--backbone'), ('DIR --run r --weights random', '--weights'), ('DIR --run r --size 64', '--size'), ('DIR --run r --crops 1', '--crops'),
    ('DIR --label-column tags', '--label-column'), ('DIR --label-delim ;', '--label-delim'), ('a.json --file-column image', '--file-column'),
    ('DIR --root DIR', '--root'), ('--tags cat --skip-bad', '--tags'), ('--tags cat --label-delim ;', '--tags'), ('--tags cat --plain', '--tags')])
def test_options_without_effect_are_refused(args, said, tmp_path, laso):
    folder(tmp_path/'d', red=1, green=1)
    (tmp_path/'a.json').write_text('[]')
    status,_,err = laso('teach', *args.replace('DIR', str(tmp_path/'d')).replace('a.json', str(tmp_path/'a.json')).split())
    assert status == 2 and err.count('\n') == 1 and said in err and ' out' in err, err

def ops_file():
    (found,) = [p for p in cache_dir().rglob('operators.safetensors') if 'ops-' in str(p)]
    return found.read_bytes()

def taught(backbone, path): return FewShotTagger.teach([image(i) for i in range(6)], [['a'], ['b'], ['a', 'b'], ['a'], ['b'], []], backbone=backbone, show=False).export(path).read_bytes()

def at_once(*fs):
    "What functions return that run in threads; they are changed as often as can be."
    res,before = [None]*len(fs),sys.getswitchinterval()
    def run(i):
        try: res[i] = fs[i]()
        except BaseException as e: res[i] = e
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(fs))]
    sys.setswitchinterval(1e-5)
    try:
        for t in threads: t.start()
        for t in threads: t.join()
    finally: sys.setswitchinterval(before)
    for o in res:
        if isinstance(o, BaseException): raise o
    return res

def test_teaching_in_threads(backbone, tmp_path, monkeypatch):
    "Four that teach at once write what one writes alone: the operators in the cache, and the tagger."
    monkeypatch.setattr(scenes_ops, '__defaults__', (150, 1024))   # less of it
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'alone'))
    alone,ops = taught(backbone, tmp_path/'alone.tagger'),ops_file()
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'together'))
    for o in at_once(*(lambda i=i: taught(backbone, tmp_path/f'{i}.tagger') for i in range(4))): assert o == alone
    assert ops_file() == ops

def weights(ops): return {k: v.clone() for k,v in ops.state_dict().items()}
def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('kind', ['mixture', 'adaptive'])
def test_training_while_others_draw(kind):
    from laso.train.recipes import train_ops
    table,stop = toy_table(n=150),threading.Event()
    def train(seed): return weights(train_ops(table, kind, 1, n_pairs=256, bs=64, seed=seed))
    alone = [train(seed) for seed in range(2)]
    def draw():
        while not stop.is_set(): torch.rand(3),np.random.rand(3),random.random()
    other = threading.Thread(target=draw)
    other.start()
    try: found = at_once(*(lambda s=s: train(s) for s in range(2)))
    finally: stop.set(); other.join()
    for a,b in zip(alone, found): assert same(a, b)

def test_new_networks_take_nothing_from_others():
    "What is drawn in the middle of making a network does not change it, and is not changed by it."
    from laso.train.callbacks import drawn_from
    def made(between):
        with drawn_from(3): return torch.nn.Linear(5, 4).weight,between(),torch.nn.Linear(4, 3).weight
    a,_,b = made(lambda: None)
    def others():
        res = []
        t = threading.Thread(target=lambda: res.append(torch.rand(2)))
        t.start(); t.join()
        return res[0]
    c,_,d = made(others)
    assert torch.equal(a, c) and torch.equal(b, d)

def test_predict_during_add(backbone, monkeypatch):
    "What is added between scoring and choosing changes nothing of what is predicted."
    images,labels = [image(i) for i in range(4)],[['b'], ['c'], ['b', 'c'], []]
    t = FewShotTagger.teach(images, labels, backbone=backbone, ops=None, show=False)
    want,score = t.predict(images),TagHead.predict_proba
    def adds(self, x):
        res = score(self, x)
        if t.tags == ['b', 'c'] and not adds.done:
            adds.done = True
            t.add([image(9), image(8)], [['a'], ['d']])
        return res
    adds.done = False
    monkeypatch.setattr(TagHead, 'predict_proba', adds)
    assert t.predict(images) == want and t.tags == ['a', 'b', 'c', 'd']
    assert t.head.coef_.shape[1] == t.y.shape[1] == 4 and len(t.x) == 6

def test_a_failed_add_changes_nothing(backbone, monkeypatch):
    t = FewShotTagger.teach([image(0), image(1)], [['b'], []], backbone=backbone, ops=None, show=False)
    def fails(*args): raise RuntimeError('stopped')
    want = t.predict([image(2)])
    monkeypatch.setattr(TagHead, 'fit', fails)
    with pytest.raises(RuntimeError): t.add([image(3)], [['c']])
    monkeypatch.undo()
    assert t.tags == ['b'] and t.predict([image(2)]) == want

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)

@pytest.mark.parametrize('make', [list, tuple, np.array, torch.tensor, pd.DataFrame], ids='list tuple array tensor frame'.split())
@pytest.mark.parametrize('kind', [int, float, bool])
def test_labels_of_0_and_1(make, kind):
    y = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    head = TagHead().fit(X, make(y.astype(kind).tolist()))
    assert head.classes_.tolist() == [0, 1, 2] and np.array_equal(head.predict_proba(X), TagHead().fit(X, y).predict_proba(X))

@pytest.mark.parametrize('y', [[[0, 1]]*5+[[0]], [[0, 2]]*6, [[0, np.inf]]*6, [[0, -1]]*6, [0, 1]*3, [['a'], [1]]*3, np.full((6, 2), np.nan), [[None]]*6])
def test_labels_that_are_neither(y):
    with pytest.raises(InputError, match='^expected labels'): TagHead().fit(X, y)

def test_numbers_that_are_none():
    a,nan = torch.ones(2, 3),torch.full((2, 3), torch.nan)
    for f in (lambda: fit_linear(nan, a), lambda: fit_linear(a, nan), lambda: TagHead().fit(nan, a)):
        with pytest.raises(ValueError, match='^expected '): f()

@pytest.mark.parametrize('empty', [Image.new('RGB', (0, 0)), Image.new('L', (0, 5)), np.zeros((0, 0, 3), np.uint8)], ids=['image', 'line', 'array'])
def test_empty_images(empty, backbone):
    t = FewShotTagger.teach([image(0), image(1)], [['b'], []], backbone=backbone, ops=None, show=False)
    with pytest.raises(InputError, match='image 0'): t.predict([empty])
