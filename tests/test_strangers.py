"""Files of strangers: nothing in them runs, nothing is written elsewhere, and memory stays within what the page on files states.

Every reader meets every kind of hostile file, and each format the lies that it allows."""
import io, json, os, pickle, re, shutil, struct, subprocess, sys, tarfile, zipfile
from pathlib import Path
import numpy as np
import pytest, torch
from helpers import image, refused, saved
from fastai.data.external import fastai_cfg
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from laso.data import decode as files, files as files_module
from laso.features.backbones import create_backbone
from laso.core import InputError
from laso.data.folder import read_folder
from laso.features.table import FeatureTable, load_features
from laso.fewshot.views import Views
from laso.data.archives import ARCHIVE, check_archive
from laso.data.decode import open_image
from laso.data.files import read_text
from laso.data.layouts import fastai_data, read_coco, read_voc
from laso.lab.official import load_official, read_weights
from laso.ops.kinds import SetOps, set_ops
from laso.bench.results import read_run
from laso.bench.restore import backbone_and_ops
from laso.tag.tagger import FewShotTagger, load_tagger

class Evil:
    "A pickle that leaves a mark when it is read."
    def __init__(self, mark): self.mark = str(mark)
    def __reduce__(self): return Path(self.mark).touch, ()

# Every reader

def in_folder(name, read):
    def f(file, path):
        shutil.copy(file, path/name)
        return read(path)
    return f

def good_table(path): FeatureTable(torch.rand(4, 3), torch.eye(4, 2), ['a', 'b'], [0, 0, 1, 1], [0, 1]).save(path)

def with_table(name):
    def f(file, path):
        good_table(path/'t')
        shutil.copy(file, path/'t'/name)
        return load_features(path/'t')
    return f

def with_ops(name):
    def f(file, path):
        set_ops('mixture', 3, h=2).save(path/'o')
        shutil.copy(file, path/'o'/name)
        return SetOps.load(path/'o')
    return f

def as_coco(file, path):
    (path/'annotations').mkdir()
    for o in 'train', 'val': shutil.copy(file, path/'annotations'/f'instances_{o}2017.json')
    return read_coco(path)

def as_voc(file, path):
    for o in 'Annotations', 'ImageSets/Main': (path/o).mkdir(parents=True)
    for o in 'train', 'val': (path/'ImageSets'/'Main'/f'{o}.txt').write_text('000001\n')
    shutil.copy(file, path/'Annotations'/'000001.xml')
    return read_voc(path)

def as_celeba(file, path):
    from laso.data.layouts import read_celeba
    for o in 'list_attr_celeba.txt', 'list_eval_partition.txt': shutil.copy(file, path/o)
    (path/'img_align_celeba').mkdir()
    return read_celeba(path)

READERS = dict(
    tagger=lambda file, path: load_tagger(file), weights=lambda file, path: create_backbone('test_efficientnet', weights=file), checkpoint=lambda file, path: read_weights(file),
    operators=with_ops('operators.safetensors'), settings=with_ops('operators.json'), features=with_table('features.npy'), labels=with_table('features.json'), views=lambda file, path: Views.load(file),
    run=in_folder('results.json', read_run), official=in_folder('paperUnionModel', load_official), official_base=in_folder('paperBaseModel', load_official), resnet=in_folder('networks_setops_model_5.pth', load_official),
    coco=as_coco, voc=as_voc, celeba=as_celeba, table=in_folder('labels.csv', read_folder), text=lambda file, path: read_text(file), picture=lambda file, path: open_image(file), archive=lambda file, path: check_archive(file))

def object_array(mark):
    f = io.BytesIO()
    np.save(f, np.array([Evil(mark)], object), allow_pickle=True)
    return f.getvalue()

def header(h, data=b''):
    "A safetensors file of this header, as text or as what JSON writes."
    h = h if isinstance(h, bytes) else json.dumps(h).encode()
    return struct.pack('<Q', len(h)) + h + data

def tensor(dtype='F32', shape=(1,), at=(0, 4)): return dict(dtype=dtype, shape=list(shape), data_offsets=list(at))

HOSTILE = dict(
    empty=lambda m: b'', text=lambda m: b'no numbers at all', zeros=lambda m: bytes(1000), noise=lambda m: np.random.default_rng(0).bytes(5000), pickle=lambda m: pickle.dumps(Evil(m)), old_pickle=lambda m: pickle.dumps(Evil(m), protocol=0),
    torch_pickle=lambda m: saved(dict(state_dict=dict(a=Evil(m)))), torch_legacy=lambda m: saved(dict(a=Evil(m)), _use_new_zipfile_serialization=False), module=lambda m: saved(torch.nn.Linear(2, 2)), object_array=object_array,
    deep=lambda m: b'['*10**5, deep_closed=lambda m: b'['*10**5+b']'*10**5, deep_dicts=lambda m: b'{"a":'*10**5, deep_xml=lambda m: b'<annotation>'+b'<a>'*10**5, deep_header=lambda m: header(b'['*10**5), digits=lambda m: b'1'*10**6,
    long_header=lambda m: struct.pack('<Q', 2**63)+b'{}', header_of_a_terabyte=lambda m: struct.pack('<Q', 2**40)+b'{}', header_past_the_end=lambda m: struct.pack('<Q', 99)+b'{}',
    shape_of_a_terabyte=lambda m: header(dict(a=tensor(shape=[2**38])), bytes(4)), shape_that_overflows=lambda m: header(dict(a=tensor(shape=[2**32, 2**32])), bytes(4)), negative_shape=lambda m: header(dict(a=tensor(shape=[-1])), bytes(4)),
    offsets_past_the_end=lambda m: header(dict(a=tensor(at=[0, 2**40], shape=[2**38])), bytes(4)), offsets_reversed=lambda m: header(dict(a=tensor(at=[4, 0])), bytes(4)), offsets_overlap=lambda m: header(dict(a=tensor(), b=tensor()), bytes(4)),
    unknown_type=lambda m: header(dict(a=tensor('X99')), bytes(4)), eight_bit_floats=lambda m: header(dict(a=tensor('F8_E4M3', at=[0, 1])), bytes(1)), many_tensors=lambda m: header({f'a{i}': tensor(shape=[0], at=[0, 0]) for i in range(10**4)}),
    zip_bomb=lambda m: zipped(dict.fromkeys(map(str, range(3)), bytes(10**7))), npy_of_a_terabyte=lambda m: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10**6, 10**6), }".replace('10**6', '1000000')), npy_negative=lambda m: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3), }"),
    npy_code=lambda m: npy(f"__import__('pathlib').Path({str(m)!r}).touch()"), npy_deep=lambda m: npy('('*9000), npy_minus=lambda m: npy('-'*9000+'1'), npy_object=lambda m: npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }"),
    entities=lambda m: b'<!DOCTYPE a [<!ENTITY b "'+b'x'*1000+b'">'+b''.join(b'<!ENTITY c%d "%s">' % (i, (b'&c%d;' % (i-1) if i else b'&b;')*10) for i in range(9))+b']><annotation>&c8;</annotation>',
    outside=lambda m: b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hosts">]><annotation><object><name>&b;</name></object></annotation>')

def npy(head):
    head = head.encode().ljust(118) + b'\n'
    return b'\x93NUMPY\x01\0' + struct.pack('<H', len(head)) + head + bytes(48)

def zipped(members):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
        for k,v in members.items(): z.writestr(k, v)
    return f.getvalue()

FINE = {('text', o) for o in ('text', 'empty', 'deep', 'deep_closed', 'deep_dicts', 'deep_xml', 'digits', 'old_pickle', 'entities', 'outside')} | {('archive', o) for o in ('zeros', 'zip_bomb', 'torch_pickle', 'module')}   # an empty tar, and zips
PAIRS = [(r, h) for r in READERS for h in HOSTILE if (r, h) not in FINE]

def memory(what): return int(re.search(rf'{what}:\s+(\d+)', Path('/proc/self/status').read_text())[1])/1024   # MB

def everything(path):
    "All pairs, one after the other; memory is measured around each."
    os.chdir(path)
    mark,worst = path/'mark',('', 0)
    before,content = sorted(os.listdir(path)),{k: f(mark) for k,f in HOSTILE.items()}
    for reader,hostile in PAIRS:
        work = path/'work'
        work.mkdir()
        (work/'in').mkdir()
        (path/'hostile').write_bytes(content[hostile])
        Path('/proc/self/clear_refs').write_text('5')
        held,room = memory('VmRSS'),memory('VmSize')
        try: READERS[reader](path/'hostile', work/'in')
        except InputError as e: assert str(e).startswith('expected ') and ', found ' in str(e) and str(e).isprintable() and len(str(e)) < 2500, (reader, hostile, str(e))
        except BaseException as e: raise AssertionError(f'{reader} {hostile}: {type(e).__name__} {e}')
        else: raise AssertionError(f'{reader} reads {hostile}')
        took = memory('VmHWM')-held
        worst = max(worst, (f'{reader} {hostile}', took), key=lambda o: o[1])
        assert took < 400 and memory('VmPeak')-room < 4000, (reader, hostile, took)
        assert not mark.exists(), (reader, hostile)
        shutil.rmtree(work)
        (path/'hostile').unlink()
    assert sorted(os.listdir(path)) == before
    print('pairs', len(PAIRS), 'worst', worst)

@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs /proc of Linux to measure memory')
def test_every_reader_meets_every_hostile_file(in_clean_process, tmp_path):
    "Refused with a sentence, no code run, nothing left, less than 400 MB in memory."
    status,log = in_clean_process(everything, tmp_path)
    assert status == 0, log[-3000:]
    print(log[-200:])

# Taggers and operators that describe more than they hold

@pytest.fixture(scope='module')
def tagger(tmp_path_factory, backbone):
    path,ops = tmp_path_factory.mktemp('tagger'),set_ops('mixture', backbone.width, h=4)
    images = [image(i, (8, 8)) for i in range(4)]
    return FewShotTagger.teach(images, [['a'], ['b'], ['a', 'b'], []], backbone=backbone, ops=ops).export(path/'my.tagger')

def setting(*keys, to):
    def f(about, arrays):
        for k in keys[:-1]: about = about[k]
        about[keys[-1]] = to
    return f

def array(k, f): return lambda about, arrays: arrays.update({k: f(arrays[k])})

TAGGERS = dict(
    giant_backbone=setting('backbone', 'name', to='vit_gigantic_patch14_224'), other_backbone=setting('backbone', 'name', to='test_vit'), hub_backbone=setting('backbone', 'name', to='hf-hub:someone/model'), local_backbone=setting('backbone', 'name', to='local-dir:/tmp'), no_backbone=setting('backbone', to=None),
    name_a_list=setting('backbone', 'name', to=['a']), size_a_million=setting('backbone', 'size', to=10**6), size_1025=setting('backbone', 'size', to=1025), size_zero=setting('backbone', 'size', to=0), size_text=setting('backbone', 'size', to='64'), size_fraction=setting('backbone', 'size', to=64.5),
    mean_nan=setting('backbone', 'mean', to=[float('nan')]*3), mean_two=setting('backbone', 'mean', to=[0, 0]), std_zero=setting('backbone', 'std', to=[0, 1, 1]), std_text=setting('backbone', 'std', to='abc'), slope_nan=setting('slope', to=float('nan')), slope_text=setting('slope', to='1'), slope_huge=setting('slope', to=10**400),
    ops_wide=setting('ops', 'h', to=10**9), ops_d=setting('ops', 'd', to=10**9), ops_blocks=setting('ops', to=dict(kind='residual', d=256, n_blocks=10**9)), ops_kind=setting('ops', 'kind', to='os.system'), ops_more=setting('ops', 'evil', to=1), ops_p=setting('ops', 'p', to='x'), ops_list=setting('ops', to=[]), ops_true=setting('ops', to=True),
    ops_other_width=setting('ops', to=dict(kind='analytic', d=7)), no_tags=setting('tags', to=[]), tags_text=setting('tags', to='ab'), tags_number=setting('tags', to=3), tags_twice=setting('tags', to=['a', 'a']), tags_more=setting('tags', to=['a', 'b', 'c']), tags_many=setting('tags', to=[str(i) for i in range(10**5)]),
    tag_escape=setting('tags', to=['\x1b[2J', 'b']), tag_newline=setting('tags', to=['a\nb', 'b']), tag_empty=setting('tags', to=['', 'b']), scores_text=setting('left_out_map', to=dict(without='high')), scores_none=setting('left_out_map', to={}), scores_list=setting('left_out_map', to=[1]),
    x_nan=array('x', lambda v: v*float('nan')), x_wide=array('x', lambda v: v[:,:5].contiguous()), x_integers=array('x', lambda v: v.long()), x_double=array('x', lambda v: v.double()), y_short=array('y', lambda v: v[:1].clone()), coef_inf=array('coef', lambda v: v/0), x_flat=array('x', lambda v: v.flatten()),
    weights_nan=array('backbone.conv_stem.weight', lambda v: v*float('nan')), weights_shape=array('backbone.conv_stem.weight', lambda v: v.flatten()), weights_integers=array('backbone.conv_stem.weight', lambda v: v.long()), ops_nan=array('ops.union.mix', lambda v: v/0), no_weights=lambda about, arrays: [arrays.pop(k) for k in [*arrays] if k.startswith('backbone.')],
    no_ops=lambda about, arrays: [arrays.pop(k) for k in [*arrays] if k.startswith('ops.')], no_x=lambda about, arrays: arrays.pop('x'), no_head=lambda about, arrays: arrays.pop('thresholds'))

def changed(tagger, path, change):
    with safe_open(tagger, 'pt') as f: about,arrays = json.loads(f.metadata()['laso']),{k: f.get_tensor(k) for k in f.keys()}
    change(about, arrays)
    save_file(arrays, path, metadata=dict(laso=json.dumps(about)))
    return path

@pytest.mark.parametrize('change', TAGGERS.values(), ids=TAGGERS)
def test_tagger(tagger, tmp_path, change):
    assert load_tagger(tagger).tags == ['a', 'b']
    before = memory('VmPeak') if os.path.exists('/proc/self/status') else 0
    refused(lambda: load_tagger(changed(tagger, tmp_path/'t', change)), 'expected a tagger in', 'found something else')
    if before: assert memory('VmPeak')-before < 1500

@pytest.mark.parametrize('text', ['', 'null', '[]', '['*10**5, '{"tags": ["a"]}', '{"tags": NaN}'])
def test_tagger_of_other_text(tagger, tmp_path, text):
    save_file(load_file(tagger), tmp_path/'t', metadata=dict(laso=text))
    refused(lambda: load_tagger(tmp_path/'t'))
    save_file(load_file(tagger), tmp_path/'t')
    refused(lambda: load_tagger(tmp_path/'t'))

@pytest.mark.parametrize('config', [dict(kind='mixture', d=10**9), dict(kind='mixture', d=3, h=10**12), dict(kind='paper', d=3, h=2**17), dict(kind='residual', d=3, n_blocks=10**9), dict(kind='residual', d=3, n_blocks=-1), dict(kind='mixture', d='3'), dict(kind='mixture', d=3.5),
    dict(kind=['mixture'], d=3), dict(kind='mixture'), dict(d=3), dict(kind='mixture', d=3, h=2, more=1), dict(kind='mixture', d=3, h=2, p=7), [], 3, None, dict(kind='mixture', d=4, h=2), dict(kind='mixture', d=3, h=3)])
def test_operators(tmp_path, config):
    set_ops('mixture', 3, h=2).save(tmp_path)
    SetOps.load(tmp_path)
    (tmp_path/'operators.json').write_text(json.dumps(config))
    refused(lambda: SetOps.load(tmp_path), 'operators.json and operators.safetensors')

def test_operators_of_a_large_file(tmp_path):
    "A settings file above its limit is not even read."
    set_ops('mixture', 3, h=2).save(tmp_path)
    with (tmp_path/'operators.json').open('r+b') as f: f.truncate(2**40)
    refused(lambda: SetOps.load(tmp_path))

@pytest.mark.parametrize('name', ['features.json', 'operators.json', 'operators.safetensors', 'views.safetensors', 'results.json', 'labels.csv', 'picture.jpg', 'my.tagger', 'paperUnionModel', '000001.xml'])
def test_sparse_terabytes(tmp_path, name):
    "Files that claim a terabyte and take none."
    reader = {'features.json': with_table('x'), 'operators.json': with_ops('x')}
    good_table(tmp_path/'t')
    set_ops('mixture', 3, h=2).save(tmp_path/'o')
    place = {'features.json': tmp_path/'t', 'operators.json': tmp_path/'o', 'operators.safetensors': tmp_path/'o', '000001.xml': tmp_path/'Annotations'}.get(name, tmp_path)
    place.mkdir(exist_ok=True)
    (tmp_path/'ImageSets'/'Main').mkdir(parents=True)
    for o in 'train', 'val': (tmp_path/'ImageSets'/'Main'/f'{o}.txt').write_text('000001\n')
    with (place/name).open('wb') as f: f.truncate(2**40)
    read = {'features.json': lambda: load_features(place), 'operators.json': lambda: SetOps.load(place), 'operators.safetensors': lambda: SetOps.load(place), 'views.safetensors': lambda: Views.load(place/name), 'results.json': lambda: read_run(place),
            'labels.csv': lambda: read_folder(place), 'picture.jpg': lambda: open_image(place/name), 'my.tagger': lambda: load_tagger(place/name), 'paperUnionModel': lambda: load_official(place), '000001.xml': lambda: read_voc(tmp_path)}[name]
    refused(read)

def run_of(path, **about):
    rest = dict(data=dict(name='a'), operators=[], fewshot=[], untouched={}, seed=0)
    (path/'results.json').write_text(json.dumps(dict(rest, **about)))
    save_file({'a': torch.zeros(1)}, path/'backbone.safetensors')
    return path

@pytest.mark.parametrize('backbone', [None, 3, [], {}, dict(name='resnet50'), dict(name='resnet50', size='x', finetuned=True), dict(name='resnet50', size=10**7, finetuned=True), dict(name='vit_gigantic_patch14_224', size=224, finetuned=True), dict(name='../x', size=64, finetuned=True), dict(name=None, size=64, finetuned=True)])
def test_run(tmp_path, backbone): refused(lambda: backbone_and_ops(run_of(tmp_path, backbone=backbone)))

@pytest.mark.parametrize('part', [dict(operators=3), dict(operators=[3]), dict(operators=[{}]), dict(fewshot={}), dict(fewshot=[dict(method=[], shot=1, episode=0, map=1)]), dict(operators=[dict(classes='seen', op='union', operator='x', map='high')]*2), dict(fewshot=None), dict(operators='[/b]')])
def test_compare(tmp_path, part):
    from laso.bench.compare import compare_runs
    a = read_run(run_of(tmp_path, **part))
    refused(lambda: compare_runs(a, a))

# Checkpoints of the authors

EXPANDED = torch.zeros(1).expand(10**12)
CHECKPOINTS = dict(
    expanded=lambda: saved({'0.weight': EXPANDED, '8.weight': EXPANDED}), sparse=lambda: saved({'0.weight': torch.sparse_coo_tensor(torch.zeros(2, 1).long(), torch.ones(1), (10**9, 10**9)), '8.weight': torch.zeros(1)}), no_rank=lambda: saved({'l1.0.weight': torch.tensor(1.), 'linear_block.7.weight': torch.tensor(1.)}),
    thin=lambda: saved({'l1.0.weight': torch.zeros(10**7, 1, dtype=torch.int8), 'linear_block.7.weight': torch.zeros(10**7, 1, dtype=torch.int8)}), numbers=lambda: saved({'a': 1}), nested=lambda: saved({'a': {'b': torch.zeros(1)}}), a_list=lambda: saved([torch.zeros(1)]), nothing=lambda: saved({}), keys_are_numbers=lambda: saved({1: torch.zeros(1)}),
    compressed=lambda: repacked(saved({'a': torch.zeros(5*10**6)})), legacy=lambda: saved({'a': torch.zeros(3)}, _use_new_zipfile_serialization=False)[:-5], meta=lambda: saved({'0.weight': torch.zeros(10**6, 10**6, device='meta')}), quantised=lambda: saved({'0.weight': torch.quantize_per_tensor(torch.zeros(3), .1, 0, torch.qint8)}))

def repacked(data):
    "The same checkpoint, compressed."
    with zipfile.ZipFile(io.BytesIO(data)) as z: return zipped({o: z.read(o) for o in z.namelist()})

@pytest.mark.parametrize('make', CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize('name', ['paperUnionModel', 'paperDiscriminator', 'paperBaseModel', 'networks_setops_model_5.pth'])
def test_checkpoint(tmp_path, make, name):
    (tmp_path/name).write_bytes(make())
    before = memory('VmPeak') if os.path.exists('/proc/self/status') else 0
    refused(lambda: load_official(tmp_path))
    if before: assert memory('VmPeak')-before < 2000

# Archives

def tarred(*members, mode='w:gz'):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode=mode) as t:
        for name,kind,extra in members:
            o = tarfile.TarInfo(name)
            o.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE): o.linkname = extra
            elif kind == tarfile.REGTYPE: o.size = len(extra)
            t.addfile(o, io.BytesIO(extra) if kind == tarfile.REGTYPE else None)
    return f.getvalue()

def zip_link():
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w') as z:
        o = zipfile.ZipInfo('coco_tiny/link')
        o.external_attr = 0o120777 << 16
        z.writestr(o, '/etc')
    return f.getvalue()

def zip_claims(n=20):
    "A zip whose directory claims members of 4 GB."
    b = bytearray(zipped({f'coco_tiny/{i}': b'x' for i in range(n)}))
    at = 0
    while (at := b.find(b'PK\x01\x02', at)) >= 0: b[at+24:at+28] = struct.pack('<I', 2**32-2); at += 4
    return bytes(b)

FILE = ('coco_tiny/a.txt', tarfile.REGTYPE, b'x')
ARCHIVES = dict(
    zip_up=lambda: zipped({'../evil.txt': b'x'}), zip_up_inside=lambda: zipped({'coco_tiny/../../evil.txt': b'x'}), zip_absolute=lambda: zipped({'/tmp/evil.txt': b'x'}), zip_backslash=lambda: zipped({'..\\evil.txt': b'x'}), zip_drive=lambda: zipped({'C:/evil.txt': b'x'}), zip_link=zip_link, zip_claims=zip_claims,
    tar_up=lambda: tarred(FILE, ('../evil.txt', tarfile.REGTYPE, b'x')), tar_absolute=lambda: tarred(FILE, ('/tmp/evil.txt', tarfile.REGTYPE, b'x')), tar_link_out=lambda: tarred(FILE, ('coco_tiny/l', tarfile.SYMTYPE, '/etc')), tar_link_up=lambda: tarred(('coco_tiny/l', tarfile.SYMTYPE, '..'), ('coco_tiny/l/evil.txt', tarfile.REGTYPE, b'x')),
    tar_link_inside=lambda: tarred(FILE, ('coco_tiny/l', tarfile.SYMTYPE, 'a.txt')), tar_hard_link=lambda: tarred(FILE, ('coco_tiny/l', tarfile.LNKTYPE, '/etc/hosts')), tar_device=lambda: tarred(FILE, ('coco_tiny/d', tarfile.CHRTYPE, b'')), tar_block=lambda: tarred(FILE, ('coco_tiny/d', tarfile.BLKTYPE, b'')), tar_pipe=lambda: tarred(FILE, ('coco_tiny/p', tarfile.FIFOTYPE, b'')),
    tar_plain_up=lambda: tarred(('../../evil.txt', tarfile.REGTYPE, b'x'), mode='w'), tar_xz_up=lambda: tarred(('../evil.txt', tarfile.REGTYPE, b'x'), mode='w:xz'), cut_off=lambda: tarred(FILE)[:-20], text=lambda: b'no archive', no_bytes=lambda: b'')

@pytest.fixture
def downloads(tmp_path, monkeypatch):
    "`downloads(data)`: fastai's own downloading, of these bytes."
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path/'fastai'))
    fastai_cfg.cache_clear()
    def f(data, name='coco_tiny.tgz'):
        (tmp_path/'web').mkdir()
        (tmp_path/'web'/name).write_bytes(data)
        monkeypatch.setattr('fastai.data.external.URLs.COCO_TINY', f'file://{tmp_path}/web/{name}')
        return fastai_data('COCO_TINY')
    yield f
    fastai_cfg.cache_clear()

@pytest.mark.parametrize('make', ARCHIVES.values(), ids=ARCHIVES)
def test_archive(tmp_path, downloads, make):
    "Refused before anything is unpacked, from fastai's servers, too."
    (tmp_path/'a').write_bytes(make())
    refused(lambda: check_archive(tmp_path/'a'))
    refused(lambda: downloads(make(), 'coco_tiny.zip' if make()[:2] == b'PK' else 'coco_tiny.tgz'))
    assert not [*tmp_path.rglob('evil*')] and not [p for p in tmp_path.glob('fastai/data/*') if p.is_dir() and any(p.iterdir())] and not Path('/tmp/evil.txt').exists()

def test_many_bad_members(tmp_path):
    (tmp_path/'a').write_bytes(zipped({f'../{i}': b'' for i in range(30)}))
    refused(lambda: check_archive(tmp_path/'a'), '../9, … (30 in all)')

def test_good_archive(tmp_path, downloads, capsys):
    "An honest one is unpacked and read."
    cats = [dict(id=i, name=f'c{i}') for i in range(5)]
    tiny = dict(categories=cats, images=[dict(id=i, file_name=f'{i}.png') for i in range(60)], annotations=[dict(image_id=i, category_id=(i+k) % 5, bbox=[0, 0, 1, 1]) for i in range(60) for k in (0, 2)])
    f = io.BytesIO()
    Image.new('RGB', (4, 4)).save(f, 'PNG')
    data = downloads(tarred(('coco_tiny/train.json', tarfile.REGTYPE, json.dumps(tiny).encode()), *[(f'coco_tiny/train/{i}.png', tarfile.REGTYPE, f.getvalue()) for i in range(60)]))
    assert len(data) == 60 and data.open(3).size == (4, 4)

# Limits

def test_limits_are_stated():
    "The page on files states the limits that the code has."
    pages = [json.loads((Path(files.__file__).parents[2]/f'nbs/data/{o}.ipynb').read_text(encoding='utf8')) for o in ('08_files', '11_decode')]
    text = '\n'.join(t for p in pages for c in p['cells'] if '## Limits' in (t := ''.join(c['source'])))
    assert files.PIXELS == 2**27 and '2^{27}' in text
    for size,words in ((files.IMAGE, '1 GiB'), (files_module.TEXT, '128 MiB'), (files_module.JSON, '256 MiB'), (files.TENSORS, '8 GiB'), (ARCHIVE, '64 GiB')):
        assert words in text and size == int(words.split()[0])*2**(20 if 'MiB' in words else 30)

def peak_of(f, *args):
    Path('/proc/self/clear_refs').write_text('5')
    held = memory('VmRSS')
    try: f(*args)
    except InputError: pass
    print('MB', round(memory('VmHWM')-held))

def worst_json(file): files_module.read_json(file)
def worst_text(file): read_folder(file.parent)

@pytest.mark.slow
@pytest.mark.parametrize('kind', ['lists', 'dicts', 'words', 'table', 'picture', 'turned', 'transparent', 'both', 'tensors'])
def test_memory_is_as_stated(in_clean_process, tmp_path, kind):
    "The worst of each format that we know, against the page on files."
    n,file = 2**24,tmp_path/'labels.csv'
    if kind in ('lists', 'dicts', 'words'): file.write_text('[' + ','.join([{'lists': '[]', 'dicts': '{}', 'words': '"a"'}[kind]]*(n//3)) + ']')
    elif kind == 'table': file.write_text('fname,labels\n' + ''.join(f'{i},a\n' for i in range(n//10)))
    elif kind == 'tensors': save_file({'a': torch.rand(2**26)}, file)
    else:
        im = Image.new(mode := 'RGBA' if kind in ('transparent', 'both') else 'RGB', (11_500, 11_500), (9, 9, 9, 9)[:len(mode)])
        exif = Image.Exif()
        if kind in ('turned', 'both'): exif[0x112] = 6
        im.save(file, 'PNG', exif=exif, compress_level=1)
    size,pixels = file.stat().st_size,11_500**2
    read,bound = {'table': (worst_text, 80*size), 'tensors': (files.read_tensors, size), 'lists': (worst_json, 30*size), 'dicts': (worst_json, 30*size), 'words': (worst_json, 30*size)}.get(kind, (open_image, 16*pixels))
    status,log = in_clean_process(peak_of, read, file)
    assert status == 0, log
    took = int(re.search(r'MB (\d+)', log)[1])
    print(kind, took, 'MB of', round(bound/2**20))
    assert took*2**20 < bound + 64*2**20

@pytest.mark.slow
@pytest.mark.parametrize('target', ['csv', 'tensors', 'tagger', 'json', 'array', 'picture', 'archive', 'checkpoint', 'operators', 'pickle', 'coco', 'voc'])
def test_coverage_guided(tmp_path, target):
    "A minute of atheris for each reader; see `fuzz.py`."
    pytest.importorskip('atheris')
    p = subprocess.run([sys.executable, Path(__file__).with_name('fuzz.py'), target, '60'], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert p.returncode == 0, p.stdout[-2000:] + p.stderr[-3000:]
    print(p.stderr[-300:])
