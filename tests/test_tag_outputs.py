"What `laso tag` writes beside its lines: tables, sidecars, sorted folders, a page, other programs' files; and how it goes on after a kill."
import base64, csv, io, json, os, random, re, shutil, signal, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from forked import needs_fork
from helpers import refused
from hypothesis import given, settings, strategies as st
from PIL import Image
from laso import cli
from laso.core import from_cell, split_names
from laso.data import decode
from laso.store import digest
from laso.tag import exchange, outputs
from laso.tag.exchange import merged, read_labels_json, write_label_studio
from laso.tag.images import find_images, read_taught
from laso.tag.outputs import SORTED, SortedFolder, folder_name, tag_images
from laso.owned import Journal
from laso.tag.tagger import FewShotTagger, load_tagger

EXIFTOOL = shutil.which('exiftool')
needs_exiftool = pytest.mark.skipif(not EXIFTOOL, reason='needs exiftool: apt install libimage-exiftool-perl')
TAGS = ['=1+1', 'a/b|red', 'grün']

def photo(colour, i):
    "Noise of one colour."
    x = np.random.default_rng(i).integers(0, 60, (24, 30, 3), np.uint8)
    x[...,colour] += 150
    return Image.fromarray(x)

@pytest.fixture(scope='module')
def tagger(backbone, tmp_path_factory):
    "The file of a tagger for odd names of colours."
    images = [photo(c, 10*c+i) for c in range(3) for i in range(4)]
    t = FewShotTagger.teach(images, [[TAGS[i//4]] for i in range(12)], backbone=backbone, ops=None, show=False)
    return t.export(tmp_path_factory.mktemp('tagger')/'my.tagger')

NAMES = ['=cmd.png', 'été/vue 1.png', 'été/@b.png', 'c#?%41.png', 'x.jpg', 'x.png']

@pytest.fixture
def photos(tmp_path):
    path = tmp_path/'Фото'
    for i,o in enumerate(NAMES):
        (path/o).parent.mkdir(parents=True, exist_ok=True)
        photo(i % 3, 100+i).save(path/o)
    return path

def rows_of(file): return list(csv.DictReader(open(file, encoding='utf8', newline='')))
def digests(folder): return {p: digest(p) for p in sorted(folder.rglob('*')) if p.suffix in ('.png', '.jpg')}
def plain(o): return o.removeprefix("'")

# Going on

def test_goes_on_from_what_is_finished(tagger, photos, laso, monkeypatch, tmp_path):
    "Each image is opened once, unless it or the tagger changed."
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    opened = []
    real = outputs.ImageList
    monkeypatch.setattr(outputs, 'ImageList', lambda o: (opened.extend(o if len(o) == 1 else []), real(o))[1])
    first = laso('tag', tagger, photos)
    assert first[0] == 0 and len(opened) == 6 and not first[2]
    again = laso('tag', tagger, photos)
    assert again[:2] == first[:2] and len(opened) == 6
    assert again[2] == 'laso: 6 of 6 images have their tags from before; going on from there\n'
    photo(2, 7).save(photos/'x.png')
    os.utime(photos/'x.jpg', (1, 1))
    assert laso('tag', tagger, photos)[0] == 0 and {o.name for o in opened[6:]} == {'x.png', 'x.jpg'} and len(opened) == 8
    other = shutil.copy(tagger, tmp_path/'same.tagger')
    assert laso('tag', other, photos)[0] == 0 and len(opened) == 8   # the same tagger under another name
    load_tagger(tagger).add([photo(0, 1)], [[TAGS[0]]]).export(other)
    assert laso('tag', other, photos)[0] == 0 and len(opened) == 14

@needs_fork
def test_killed(tagger, photos, server, tmp_path):
    "What a batch got is on the disk when the process is killed in the next one."
    before = """
from laso.tag import outputs, tagger
outputs.BATCH,real,left = 2,tagger.FewShotTagger.predict_proba,[2]
def predict_proba(*args, **kwargs):
    left[0] -= 1
    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
tagger.FewShotTagger.predict_proba = predict_proba
"""
    args = 'tag', tagger, photos, '--csv', tmp_path/'t.csv', '--xmp', '--sort-into', tmp_path/'sorted'
    status,said,_ = server.run(*args, cache=tmp_path/'cache', before=before)
    done = len(list(photos.rglob('*.xmp')))
    assert status == -signal.SIGKILL and done <= 4 and not (tmp_path/'t.csv').exists()
    status,said,_ = server.run(*args, cache=tmp_path/'cache')
    assert status == 0 and '4 of 6 images have their tags from before' in said, said
    whole = tmp_path/'whole'
    assert server.run('tag', tagger, photos, '--csv', whole/'t.csv', '--sort-into', whole/'sorted', cache=whole/'cache')[0] == 0
    def tree(p): return sorted(str(o.relative_to(p)) for o in p.rglob('*') if o.is_file())
    assert tree(tmp_path/'sorted') == tree(whole/'sorted')
    for a,b in zip(rows_of(tmp_path/'t.csv'), rows_of(whole/'t.csv'), strict=True): assert list(a.values())[1:] == list(b.values())[1:]

def test_a_journal_that_was_cut(tmp_path):
    "Whatever is left of it, whole lines count and the next ones are whole."
    Journal(tmp_path/'j').add([['a', i] for i in range(3)])
    whole = (tmp_path/'j').read_bytes()
    for n in range(len(whole)):
        (tmp_path/'j').write_bytes(whole[:n])
        Journal(tmp_path/'j').add([['b', 0]])
        found = list(Journal(tmp_path/'j'))
        assert found[-1] == ['b', 0] and all(o in (['a', 0], ['a', 1], ['a', 2]) for o in found[:-1])
    (tmp_path/'j').write_bytes(whole + b'[' *10**5 + b'\n\xff\xfe\nnull\n{"a": 1}\n[1]\n[[], [], [], []]\n')
    class T: tags,backbone = ['a'],type('B', (), dict(size=8))
    T.predict_proba = lambda self, x, show: np.ones((len(x), 1))
    photo(0, 0).save(tmp_path/'a.png')
    assert len(list(tag_images(T(), [tmp_path/'a.png'], Journal(tmp_path/'j')))) == 1

def test_bad_images_are_said_by_suffix(tagger, photos, laso, tmp_path):
    for o in ('bad.jpg', 'bad.png', 'worse.png'): (photos/o).write_text('no image')
    status,out,err = laso('tag', tagger, photos, '--skip-bad')
    assert status == 0 and len(out.splitlines()) == 6 and "left out 3 of 9 images that can't be decoded: 2 .png, 1 .jpg: " in err
    status,out,err = laso('tag', tagger, photos)
    assert status == 2 and 'found 3 of 3' in err and '--skip-bad' in err
    status,_,err = laso('tag', tagger, photos/'bad.jpg', '--skip-bad')
    assert status == 2 and 'at least one image' in err

# Tables

def test_table_is_safe_and_can_be_taught(tagger, photos, laso):
    "Formulas are marked, names are from the table's folder, and what was corrected is taught."
    status,out,err = laso('tag', tagger, photos, '--csv', photos/'labels.csv', '--json', photos/'tags.json')
    assert status == 0 and not err
    rows = rows_of(photos/'labels.csv')
    assert {plain(r['fname']) for r in rows} == {*NAMES}
    assert not [c for r in rows for c in [*r, *r.values()] if c[:1] in tuple('=+-@')]
    asked = {o['file']: o['tags'] for o in json.loads((photos/'tags.json').read_text('utf8'))['images']}
    paths,labels = read_taught(photos)[:2]
    assert {p.relative_to(photos).as_posix(): l for p,l in zip(paths, labels)} == asked and all(p.is_file() for p in paths)
    text = (photos/'labels.csv').read_text('utf8')
    line = next(l for l in text.splitlines() if l.startswith('x.jpg'))
    (photos/'labels.csv').write_text(text.replace(line, 'x.jpg,"""hot dog"" grün"'+',0'*3), 'utf8')
    paths,labels = read_taught(photos)[:2]
    assert labels[[p.name for p in paths].index('x.jpg')] == ['hot dog', 'grün']

def test_any_table_is_taught(tagger, photos, laso, tmp_path):
    "Under its own name: relative to its folder, or with whole paths inside the root that is given."
    (tmp_path/'a').mkdir()
    for file,root in ((photos/'t.csv', None), (tmp_path/'t.csv', None), (tmp_path/'a'/'t.csv', photos)):
        assert laso('tag', tagger, photos, '--csv', file)[0] == 0
        paths,labels,known = read_taught(file, root)
        assert {p.resolve() for p in map(Path, paths)} == {(photos/o).resolve() for o in NAMES} and known == [None]*6
        assert [*map(sorted, labels)] == [sorted(split_names(from_cell(r['labels']))) for r in rows_of(file)]

def test_table_elsewhere_has_whole_paths(tagger, photos, laso, tmp_path):
    (tmp_path/'a'/'b').mkdir(parents=True)
    for o in (tmp_path/'a'/'b'/'t.csv', tmp_path/'t.csv'): assert laso('tag', tagger, photos, '--csv', o)[0] == 0
    assert all(Path(r['fname']).is_file() and os.path.isabs(r['fname']) for r in rows_of(tmp_path/'a'/'b'/'t.csv'))
    assert all((tmp_path/r['fname']).is_file() and not os.path.isabs(r['fname']) for r in rows_of(tmp_path/'t.csv'))

def test_files_of_others_stay(tagger, photos, laso, tmp_path):
    "A photograph, a table that was edited, a folder with something in it."
    before = digests(photos)
    status,_,err = laso('tag', tagger, photos, '--csv', photos/'x.png')
    assert status == 2 and 'which laso did not write' in err
    for _ in range(2): assert laso('tag', tagger, photos, '--csv', tmp_path/'t.csv', '--html', tmp_path/'t.html')[0] == 0
    with open(tmp_path/'t.csv', 'a') as f: f.write('mine.png,dog,0,0,0\n')
    edited = (tmp_path/'t.csv').read_bytes()
    for o in (['--csv', tmp_path/'t.csv'], ['--sort-into', photos]):
        status,_,err = laso('tag', tagger, photos, *o)
        assert status == 2 and 'move it away' in err or 'choose another' in err
    assert laso('tag', tagger, photos, '--copy')[0] == 2
    assert (tmp_path/'t.csv').read_bytes() == edited and digests(photos) == before

@pytest.mark.parametrize('a,b', [('csv', 'json'), ('html', 'csv'), ('label-studio', 'fiftyone'), ('json', 'sort-into')])
def test_one_file_for_two_outputs(a, b, tagger, photos, laso, tmp_path, monkeypatch):
    "Refused before any image is opened, under whatever names."
    def never(*args, **kwargs): raise AssertionError(args)
    monkeypatch.setattr(outputs, 'tag_images', never)
    (tmp_path/'link').symlink_to('out')
    for other in (tmp_path/'out', tmp_path/'link', tmp_path/'Фото'/'..'/'out'):
        status,_,err = laso('tag', tagger, photos, f'--{a}', tmp_path/'out', f'--{b}', other)
        assert status == 2 and not (tmp_path/'out').exists()
        assert 'expected another file for each result' in err or (b, other.name) == ('sort-into', 'link')   # no folder

def test_an_image_that_is_named_twice(tagger, photos, laso, tmp_path):
    status,out,err = laso('tag', tagger, photos, photos/'x.png', photos/'été', photos/'été'/'..'/'x.png', '--csv', tmp_path/'t.csv')
    assert status == 0 and len(out.splitlines()) == len(rows_of(tmp_path/'t.csv')) == 6 and not err

def test_corrections_of_sorted_links_are_taught(tagger, photos, laso, tmp_path):
    "As `laso review` names them, with the command that its page prints."
    assert laso('tag', tagger, photos, '--sort-into', tmp_path/'sorted', '--threshold', 0)[0] == 0
    red = tmp_path/'sorted'/folder_name(TAGS[0])
    names = [p for p in sorted(red.iterdir()) if p.name[:1] == 'x']
    (tmp_path/'corrections.csv').write_text('fname,labels,known\n'+''.join(f'{p},=1+1,=1+1\n' for p in names))
    paths,labels,known = read_taught(tmp_path/'corrections.csv', red)
    assert paths == names and labels == known == [['=1+1']]*2
    status,_,err = laso('teach', '--add', tagger, tmp_path/'corrections.csv', '--root', red, '--out', tmp_path/'more.tagger')
    assert status == 0 and len(load_tagger(tmp_path/'more.tagger').x) == 14, err
    outside = tmp_path/'outside.png'
    photo(0, 1).save(outside)
    (tmp_path/'corrections.csv').write_text(f'fname,labels\n{outside},dog\n')
    refused(lambda: read_taught(tmp_path/'corrections.csv', red), 'inside the folder', '--root')

def test_outputs_among_the_photographs(tagger, photos, laso):
    "What was written there is not read the next time."
    args = ['--csv', photos/'t.csv', '--json', photos/'t.json', '--html', photos/'t.html', '--xmp', '--sort-into', photos/'sorted', '--copy',
            '--label-studio', photos/'ls.json', '--fiftyone', photos/'fo.json']
    first = laso('tag', tagger, photos, *args)
    assert first[0] == 0 and len(first[1].splitlines()) == 6
    again = laso('tag', tagger, photos, *args)
    assert again[:2] == first[:2] and 'left out 5 files' in again[2] and '.xmp' not in again[2]
    assert len(find_images(photos)) == 6 < len(find_images(photos)+find_images(photos/'sorted'))
    for o in ('ls.json', 'fo.json', 't.json'): json.loads((photos/o).read_text('utf8'))
    assert {p.name for p in read_labels_json(photos/'fo.json')[0]} == {Path(o).name for o in NAMES}

def test_nobody_listens(tagger, photos, monkeypatch, tmp_path):
    "Standard output that is closed early costs no file."
    class Closed(io.StringIO):
        def write(self, text): raise BrokenPipeError
    monkeypatch.setattr(sys, 'stdout', Closed())
    monkeypatch.setattr(sys, 'argv', ['laso', 'tag', str(tagger), str(photos), '--csv', str(tmp_path/'t.csv'), '--xmp'])
    with pytest.raises(SystemExit) as e: cli.main()
    assert not e.value.code and len(rows_of(tmp_path/'t.csv')) == 6

# Folders

@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=200))
def test_names_of_folders(tag):
    name = folder_name(tag)
    assert len(name.encode(errors='replace')) <= 200 and not re.search(r'[/\\\0:*?"<>|]|^[._ ]|[. ]$', name)
    assert not re.fullmatch(r'(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?', name)

def test_sorted_folder(tagger, photos, laso, tmp_path):
    "A link for each tag, and images of equal names side by side."
    before,out = digests(photos),tmp_path/'sorted'
    status,said,err = laso('tag', tagger, photos, '--sort-into', out)
    chosen = {l.rpartition(': ')[0]: l.rpartition(': ')[2] for l in said.splitlines()}
    n = sum(o != 'no tag' for o in chosen.values())
    assert status == 0 and (n == 6 or f'{6-n} of 6 images have no tag and are in no folder' in err)
    links = [p for p in out.rglob('*') if p.is_symlink()]
    assert n <= len(links) and all(p.resolve().is_file() and not os.path.isabs(os.readlink(p)) for p in links)
    assert {p.parent.name for p in links} <= {folder_name(t) for t in TAGS} == {'=1+1', 'a%2Fb%7Cred', 'grün'}
    shutil.move(out, tmp_path/'moved')   # beside the photographs, as before
    assert all(p.resolve().is_file() for p in (tmp_path/'moved').rglob('*') if p.is_symlink())
    s = SortedFolder(tmp_path/'c', copy=True)
    (photos/'sub').mkdir()
    photo(1, 5).save(photos/'sub'/'x.png')
    for _ in range(2): s.put([photos/'x.png', photos/'sub'/'x.png'], [['a'], ['a', 'b']])
    assert sorted(str(p.relative_to(s.folder)) for p in s.folder.rglob('*.png')) == ['a/x (2).png', 'a/x.png', 'b/x.png']
    assert before.items() <= digests(photos).items()

def test_a_record_of_strangers(photos, tmp_path):
    "It can't have anything removed that is not a link or a copy of the image in hand."
    out,mine = tmp_path/'sorted',shutil.copy(photos/'x.png', tmp_path/'mine.png')
    SortedFolder(out)
    (out/'a').mkdir()
    shutil.copy(photos/'x.png', out/'a'/'other.png').write_bytes(b'changed')
    x = str(photos/'x.png')
    Journal(out/SORTED).add([['../mine.png', x], [str(mine), x], ['a/../../mine.png', x], ['a/other.png', x], [5, x], ['a', []], 7, ['a/x', {}]])
    SortedFolder(out).put([photos/'x.png'], [[]])
    assert Path(mine).is_file() and (out/'a'/'other.png').is_file()

def test_killed_between_copies(photos, tmp_path, monkeypatch):
    "The journal knows every copy that was made, so a later run can take it back."
    files,real = [photos/o for o in NAMES],outputs._link_or_copy
    def killed(dest, source, copy):
        if source.name == 'x.jpg': raise KeyboardInterrupt
        real(dest, source, copy)
    monkeypatch.setattr(outputs, '_link_or_copy', killed)
    with pytest.raises(KeyboardInterrupt): SortedFolder(tmp_path/'s', copy=True).put(files, [['a']]*6)
    monkeypatch.undo()
    assert len([*(tmp_path/'s'/'a').iterdir()]) == 4
    SortedFolder(tmp_path/'s', copy=True).put(files, [[]]*6)
    assert not [*(tmp_path/'s'/'a').iterdir()]
    for _ in range(2): SortedFolder(tmp_path/'s', copy=True).put(files, [['a']]*6)
    assert len([*(tmp_path/'s'/'a').iterdir()]) == 6

def test_a_disk_without_links(photos, tmp_path, monkeypatch):
    def no(*args): raise OSError(1, 'Operation not permitted')
    monkeypatch.setattr(os, 'symlink', no)
    refused(lambda: SortedFolder(tmp_path/'s').put([photos/'x.png'], [['a']]), 'add --copy')

# Sidecars

def exif(file, *args):
    out = subprocess.run([EXIFTOOL, *args, str(file)], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    return out.stdout

def tags_of(file):
    (o,) = json.loads(exif(file, '-json', '-a', '-G1'))
    def listed(k): return [str(t) for t in (o.get(k) if isinstance(o.get(k), list) else [o[k]] if k in o else [])]
    return listed('XMP-dc:Subject'),listed('XMP-lr:HierarchicalSubject'),o

@pytest.fixture
def scenery(backbone, tmp_path):
    "The file of another tagger, of brightness."
    images = [Image.new('RGB', (24, 30), (v, v, v)) for v in (0, 20, 230, 250)]
    return FewShotTagger.teach(images, [['dark'], ['dark'], ['bright'], ['bright']], backbone=backbone, ops=None, show=False).export(tmp_path/'scenery.tagger')

def test_two_taggers(tagger, scenery, photos, laso, tmp_path):
    "The second takes nothing of the first away, from sidecars or sorted folders; each takes back its own."
    out = tmp_path/'sorted'
    def run(t, *more):
        assert laso('tag', t, photos, '--xmp', '--sort-into', out, *more)[0] == 0
        found = {p: p.read_text('utf8') for p in photos.rglob('*.xmp')}
        links = {str(p.relative_to(out)) for p in out.rglob('*') if p.is_symlink()}
        return {(p.name, t) for p,text in found.items() for t in (*TAGS, 'dark', 'bright') if f'>{t.split("|")[-1]}<' in text},links
    first,links = run(tagger, '--threshold', 0)
    assert len(first) == len(links) == 18
    both,all_links = run(scenery, '--threshold', 0)
    assert first < both and len(both) == 30 and links < all_links and len(all_links) == 30
    left,left_links = run(scenery, '--threshold', 1)
    assert (left, left_links) == (first, links)
    assert run(tagger, '--threshold', 1) == (set(), set())

@needs_exiftool
def test_exiftool_reads_sidecars(tagger, photos, laso):
    "Tags as in the table; photographs stay as they are; a second run changes nothing."
    before = digests(photos)
    for _ in range(2):
        assert laso('tag', tagger, photos, '--xmp', '--json', photos/'t.json')[0] == 0
    for o in json.loads((photos/'t.json').read_text('utf8'))['images']:
        sidecar = photos/f"{o['file']}.xmp"
        assert sidecar.exists() == bool(o['tags'])
        if o['tags']:
            subject,levels,_ = tags_of(sidecar)
            assert subject == [t.split('|')[-1] for t in o['tags']] and levels == o['tags']
    assert digests(photos) == before

@needs_exiftool
def test_exiftool_wrote_it(tmp_path):
    "A sidecar of exiftool keeps all that it had, on the way there and back."
    x = tmp_path/'a.jpg.xmp'
    exif(x, '-XMP-dc:Subject=Anna', '-XMP-xmp:Rating=4', '-XMP-dc:Title=Zwei\nZeilen & <mehr>', '-XMP-xmpMM:HistoryAction=saved',
         '-XMP-dc:Description-de=Käse', '-XMP-exif:GPSLatitude=47.5', '-XMP-digiKam:TagsList=people/Anna', '-XMP-mwg-rs:RegionName=Anna')
    _,_,had = tags_of(x)
    x.write_text(merged(x.read_bytes(), ['hot dog', 'animal|dog', '&<"']), 'utf8')
    subject,levels,now = tags_of(x)
    assert subject == ['Anna', 'hot dog', 'dog', '&<"'] and levels == ['hot dog', 'animal|dog', '&<"']
    assert now['XMP-digiKam:TagsList'] == ['people/Anna', 'hot dog', 'animal/dog', '&<"']
    changed = {'XMP-dc:Subject', 'XMP-lr:HierarchicalSubject', 'XMP-digiKam:TagsList', 'XMP-laso:Tags'}
    ours = {k for k in {**had, **now} if had.get(k) != now.get(k) and not k.startswith(('System:', 'File:', 'ExifTool:'))}
    assert ours <= changed and now['XMP-dc:Title'] == had['XMP-dc:Title']
    x.write_text(merged(x.read_bytes(), []), 'utf8')   # the tags are taken back
    subject,levels,_ = tags_of(x)
    assert subject == ['Anna'] and levels == []
    exif(x, '-overwrite_original', '-XMP-dc:Subject+=later')   # it can still write to it
    assert tags_of(x)[0] == ['Anna', 'later']

DARKTABLE = '''<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:darktable="http://darktable.sf.net/" exif:DateTimeOriginal="2024:05:01 10:00:00" xmp:Rating="1"
    darktable:xmp_version="5" darktable:history_end="2">
   <darktable:history><rdf:Seq>
     <rdf:li darktable:num="0" darktable:operation="exposure" darktable:params="00000000a4703d3c&#10;0"/>
     <rdf:li darktable:num="1" darktable:operation="flip" darktable:params="ffffffff"/>
   </rdf:Seq></darktable:history>
   <dc:subject><rdf:Seq><rdf:li>dog</rdf:li><rdf:li>holiday</rdf:li></rdf:Seq></dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
'''

def test_darktable_keeps_its_history():
    "Every element and attribute of before is there; only keywords come, and go again."
    from xml.etree import ElementTree as ET
    def parts(text): return [(e.tag, tuple(e.attrib.items()), (e.text or '').strip()) for e in ET.fromstring(text.encode()).iter()]
    now = merged(DARKTABLE.encode(), ['dog', 'cat'])
    left = parts(now)
    for o in parts(DARKTABLE): left.remove(o)
    assert [t for *_,t in left if t] == ['cat', 'dog', 'cat', 'cat']   # subject, two levels, what is ours
    assert '&#10;' in now and now.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<x:xmpmeta') and 'ns0' not in now
    back = merged(now.encode(), ['dog'])
    assert '>cat<' not in back and back.count('>dog<') == 2 and '>holiday<' in back

def test_hostile_sidecars(tagger, photos, laso):
    "Refused, said, and left as they are; the others get their tags."
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">' + ''.join(f'<!ENTITY {b} "&{a};&{a};&{a};">' for a,b in zip('abcdefghij', 'bcdefghijk')) + ']><x>&k;</x>'
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
    bad = {'x.jpg.xmp': bomb, 'x.png.xmp': outside, '=cmd.png.xmp': '', 'été/@b.png.xmp': '<a>'*10**4}
    for o,text in bad.items(): (photos/o).write_text(text)
    status,_,err = laso('tag', tagger, photos, '--xmp')
    assert status == 0
    for o,text in bad.items(): assert (photos/o).read_text() == text or not text
    for o in ('x.jpg.xmp', 'x.png.xmp'): assert o in err and 'a document type' in err

def test_sidecars_that_cannot_be_written(photos):
    "Said, whatever the system has against them; links and modes stay."
    long = photos/f"{'n'*250}.png"
    photo(0, 0).save(long)
    bad = exchange.write_sidecars([long, photos/'x.png', photos/'gone'/'a.png'], [['a']]*3)
    assert [why for _,why in bad] == ['File name too long', 'No such file or directory']
    (photos/'real').write_bytes((photos/'x.png.xmp').read_bytes())
    (photos/'real').chmod(0o600)
    (photos/'x.jpg.xmp').symlink_to('real')
    assert not exchange.write_sidecars([photos/'x.jpg'], [['b']]) and (photos/'x.jpg.xmp').is_symlink()
    assert '>b<' in (photos/'real').read_text() and (photos/'real').stat().st_mode & 0o777 == 0o600
    assert not [o for o in os.listdir(photos) if o.startswith('.')]

@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=('Cs', 'Cc')), min_size=1, max_size=20), max_size=4))
def test_any_tag_is_read_back(tags):
    "From a parser that is not ours to judge: minidom."
    from xml.dom.minidom import parseString
    text = merged(merged(b'', ['first']).encode(), ['second', *tags])
    found = [e.firstChild.data for e in parseString(text.encode()).getElementsByTagName('laso:tags')[0].getElementsByTagName('rdf:li')]
    assert {*found} == {'second', *(re.sub('[\ufffe\uffff]', '\ufffd', t) for t in tags)}

# Labelling programs

def test_label_studio(tmp_path):
    "An export as Label Studio 1.x writes it: uploads, local files, two annotators, a cancelled one, boxes beside choices."
    for o in ('photos/a.jpg', 'photos/b c.jpg', 'd.jpg', 'e.jpg'):
        (tmp_path/o).parent.mkdir(exist_ok=True)
        (tmp_path/o).touch()
    def choice(*tags): return dict(value=dict(choices=list(tags)), id='Jk2', from_name='tags', to_name='image', type='choices', origin='manual')
    box = dict(original_width=640, original_height=480, image_rotation=0, value=dict(x=1, y=2, width=3, height=4, rotation=0, rectanglelabels=['face']),
               id='Xu', from_name='box', to_name='image', type='rectanglelabels', origin='manual')
    def made(i, *result, cancelled=False): return dict(id=i, completed_by=1, result=list(result), was_cancelled=cancelled, ground_truth=False, lead_time=4.2, task=i)
    def task(i, image, *made): return dict(id=i, annotations=list(made), file_upload='', drafts=[], predictions=[], data=dict(image=image), meta={}, project=1)
    tasks = [task(1, '/data/local-files/?d=photos/a.jpg', made(1, choice('cat')), made(2, choice('dog', 'sea'), box), made(3, choice('no'), cancelled=True)),
             task(2, '/data/local-files/?d=home/me/photos/b%20c.jpg', made(4)), task(3, '/data/upload/1/0a1b2c3d-d.jpg', made(5, choice('dog'))),
             task(4, 'https://example.com/x/e.jpg?size=1'), task(5, 's3://bucket/e.jpg', made(6, choice('cat', 'cat')))]
    (tmp_path/'export.json').write_text(json.dumps(tasks))
    paths,labels,known = read_labels_json(tmp_path/'export.json')
    assert [str(p.relative_to(tmp_path)) for p in paths] == ['photos/a.jpg', 'photos/b c.jpg', 'd.jpg', 'e.jpg']
    assert labels == [['dog', 'sea'], [], ['dog'], ['cat']] and known == [None]*4
    assert read_labels_json(tmp_path/'export.json', tmp_path)[0] == paths
    refused(lambda: read_labels_json(tmp_path/'export.json', tmp_path/'photos'), 'd.jpg', 'give the folder of the images')
    for o in ('../../etc/passwd', '/data/local-files/?d=../../../etc/passwd', '/data/local-files/?d=/etc/passwd', '', '/', 'C:\\x.jpg'):
        (tmp_path/'bad.json').write_text(json.dumps([task(1, o, made(1, choice('a')))]))
        refused(lambda: read_labels_json(tmp_path/'bad.json'), '1 of 1 absent')

def test_label_studio_predictions(tmp_path):
    "What its documentation asks of tasks that are imported."
    from xml.etree import ElementTree as ET
    files = [tmp_path/'a&b +%.jpg', tmp_path/'é.jpg']
    write_label_studio(tmp_path/'t.json', files, ['x', 'y'], [{'x': .9}, {}], np.array([[.9, .4], [.1, .2]]))
    one,two = json.loads((tmp_path/'t.json').read_text())
    assert one['data'] == dict(image='/data/local-files/?d=a%26b%20%2B%25.jpg') and two['predictions'][0]['result'] == []
    (p,) = one['predictions']
    assert p['score'] == .2 and p['result'] == [dict(from_name='tags', to_name='image', type='choices', value=dict(choices=['x']))]
    view = ET.fromstring(exchange.label_config(['x', '<"&']))
    assert [(c.tag, c.get('value')) for c in view.find('Choices')] == [('Choice', 'x'), ('Choice', '<"&')]
    assert view.find('Image').get('value') == '$image' and view.find('Choices').get('choice') == 'multiple'

def test_fiftyone(tmp_path):
    "labels.json in all forms of its documentation, and a whole dataset."
    (tmp_path/'data'/'sub').mkdir(parents=True)
    for o in ('a.jpg', 'sub/b.png', 'c.d.jpg'): (tmp_path/'data'/o).touch()
    def read(o, name='labels.json'):
        (tmp_path/name).write_text(json.dumps(o))
        paths,labels,known = read_labels_json(tmp_path/name)
        assert known == [None]*len(paths)
        return {str(p.relative_to(tmp_path/'data')): l for p,l in zip(paths, labels)}
    classes = ['cat', 'dog']
    assert read(dict(classes=classes, labels={'a': 1, 'sub/b': None})) == {'a.jpg': ['dog']}
    assert read(dict(classes=None, labels={'a': 'dog', 'c.d': 'cat'})) == {'a.jpg': ['dog'], 'c.d.jpg': ['cat']}
    assert read(dict(classes=classes, labels={'a': [0, 'dog', dict(label=1, confidence=.5, attributes={})], 'sub/b': []})) == {'a.jpg': ['cat', 'dog', 'dog'], 'sub/b.png': []}
    assert read(dict(labels={str(tmp_path/'data'/'a.jpg'): 'dog', str(tmp_path/'data'/'sub'/'b'): ['cat']})) == {'a.jpg': ['dog'], 'sub/b.png': ['cat']}
    many = dict(_cls='Classifications', classifications=[dict(_cls='Classification', label=o) for o in classes])
    samples = [dict(filepath='data/a.jpg', tags=[], _media_type='image', ground_truth=many),
               dict(filepath='data/sub/b.png', ground_truth=dict(_cls='Classification', label='dog')), dict(filepath='data/c.d.jpg', metadata=dict(_cls='ImageMetadata'))]
    assert read(dict(samples=samples), 'samples.json') == {'a.jpg': classes, 'sub/b.png': ['dog']}

# Formats

# 64 by 64 pixels, red on the left and blue on the right
HEIC = base64.b64decode('''
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAACwAAAAjaW
luZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA
AAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAABBwaX
hpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAADRtZGF0AAAAKCgBrxOA5qhw0//+JpR//Trnh+nl5Ev/9aakj/Cod/+tEdFSK//y5T4=''')

needs_heic = pytest.mark.skipif('HEIF' not in decode.formats(), reason="needs pi-heif: pip install 'laso[heic]'")

def with_size(b, n):
    "The file with another height and width in its header."
    i = b.index(b'ispe')+8
    return b[:i] + n.to_bytes(4, 'big')*2 + b[i+8:]

@needs_heic
def test_heic(tagger, photos, laso):
    "Read as any image, upright, within the same limits."
    (photos/'IMG_1.HEIC').write_bytes(HEIC)
    im = decode.open_image(photos/'IMG_1.HEIC')
    left,right = im.getpixel((5, 5)),im.getpixel((60, 60))
    assert (im.size, im.mode) == ((64, 64), 'RGB') and left[0] > 240 > 20 > left[2] and right[2] > 240 > 20 > right[0]
    status,out,err = laso('tag', tagger, photos)
    assert status == 0 and len(out.splitlines()) == 7 and 'IMG_1.HEIC' in out and not err
    refused(lambda: decode.open_image(io.BytesIO(with_size(HEIC, 20_000)), 'a.heic'), 'more than 134 million pixels')
    refused(lambda: decode.open_image(io.BytesIO(with_size(HEIC, 2000)), 'a.heic'), 'in a.heic')
    rng = random.Random(0)
    for i in range(60):   # damaged in any place: an image or a sentence
        b = bytearray(HEIC[:rng.randrange(len(HEIC))] if i % 3 else HEIC)
        for _ in range(rng.randrange(4)): b[rng.randrange(len(b))] = rng.randrange(256)
        try: decode.open_image(io.BytesIO(bytes(b)), 'a.heic')
        except ValueError as e: assert str(e).startswith('expected an image')

def test_without_heic(tagger, photos, laso, monkeypatch):
    "One line says what was left out, by suffix and count, and what helps."
    from laso.tag import images
    for m in (decode, images): monkeypatch.setattr(m, 'formats', lambda: decode.FORMATS)
    monkeypatch.setattr(images, 'more_suffixes', set)
    for o in ('a.HEIC', 'b.heic', 'c.mov', 'd.avif'): (photos/o).write_bytes(HEIC)
    status,out,err = laso('tag', tagger, photos)
    assert status == 0 and len(out.splitlines()) == 6
    assert err.startswith('laso: left out 4 files that are not read as images: 2 .heic, 1 .') and err.endswith("; pip install 'laso[heic]' for .heic\n")
    status,_,err = laso('tag', tagger, photos/'b.heic')
    assert status == 2 and 'b.heic (HEIC, which laso[heic] rea' in err

def test_names_that_are_no_text(tagger, photos, laso, tmp_path):
    "A table of files whose names are not UTF-8 is written; the name is escaped."
    shutil.copy(photos/'x.png', os.fsencode(photos)+b'/\xff\xfe.png')
    status,_,err = laso('tag', tagger, photos, '--csv', tmp_path/'t.csv')
    assert status == 0 and any('\\udcff\\udcfe.png' in r['fname'] for r in rows_of(tmp_path/'t.csv')), err
