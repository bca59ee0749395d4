"`laso review`: the page is written, photographs and files of others stay as they are."
import base64, json, re
import numpy as np
import pytest
from helpers import image
from laso.tag.images import ImageList
from laso.tag.review import look, Looked, review_page, ReviewWidget
from laso.tag.tagger import FewShotTagger

@pytest.fixture
def photos(tmp_path, backbone):
    "A tagger and five photographs in two folders."
    labels = [['cat'], ['cat'], ['hot dog'], []]
    FewShotTagger.teach([image(i) for i in range(4)], labels, backbone=backbone, ops=None, show=False).export(tmp_path/'my.tagger')
    for i in range(5):
        at = tmp_path/'photos'/('summer, <b>'*(i % 2))
        at.mkdir(parents=True, exist_ok=True)
        image(i).save(at/f'{i}.png')
    return tmp_path

def embedded(page, name): return json.loads(re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page)[1])

def test_command(photos, laso, monkeypatch):
    monkeypatch.chdir(photos)
    before = {p: p.read_bytes() for p in photos.rglob('*') if p.is_file()}
    for _ in range(2):   # its own page is replaced
        status,out,err = laso('review', 'my.tagger', 'photos', '--out', 'out/my page.html')
        assert status == 0 and not err and '5 images on a page of 0.0 MB; open out/my page.html in a browser' in out, (out, err)
    page = (photos/'out'/'my page.html').read_text()
    data = embedded(page, 'data')
    assert data['folder'] == str(photos/'photos') and data['tags'] == ['cat', 'hot dog'] and data['tagger'] == 'my.tagger'
    assert sorted(data['names']) == ['0.png', '2.png', '4.png', 'summer, <b>/1.png', 'summer, <b>/3.png']
    assert '<b>/1' not in page and 'http' not in page and len(embedded(page, 'thumbs0')) == 5
    (photos/'photos'/'bad.png').write_bytes(b'no image')
    assert laso('review', 'my.tagger', 'photos', '--out', 'x.html')[0] == 2 and not (photos/'x.html').exists()
    assert laso('review', 'my.tagger', 'photos', '--out', 'x.html', '--skip-bad')[0] == 0
    assert {p: p.read_bytes() for p in before} == before

@pytest.mark.parametrize('out', ['my.tagger', 'photos/0.png'])
def test_files_of_others_stay(photos, laso, monkeypatch, out):
    "Refused before anything is loaded."
    monkeypatch.chdir(photos)
    before = {p: p.read_bytes() for p in photos.rglob('*') if p.is_file()}
    def never(path): raise AssertionError(path)
    monkeypatch.setattr('laso.tag.tagger.load_tagger', never)
    status,_,err = laso('review', 'my.tagger', 'photos', '--out', out)
    assert status == 2 and 'which laso did not write' in err
    assert {p: p.read_bytes() for p in photos.rglob('*') if p.is_file()} == before

def test_no_page_without_photographs(photos, laso):
    (photos/'empty').mkdir()
    status,_,err = laso('review', photos/'my.tagger', photos/'empty', '--out', photos/'x.html')
    assert status == 2 and 'at least one image' in err and not (photos/'x.html').exists()

def test_images_that_are_no_files_and_one_tag(backbone):
    t = FewShotTagger.teach([image(0), image(1)], [['a'], []], backbone=backbone, ops=None, show=False)
    arrays = [np.asarray(image(i)) for i in range(3)]
    looked = look(t, arrays, show=False)
    assert embedded(review_page(looked), 'data')['names'] == ['image 0', 'image 1', 'image 2']
    w = ReviewWidget(looked, 2)
    w.buttons[0].value = 'not shown'
    images,labels,known = w.corrections
    assert images[0] is arrays[looked.uncertain('a')[0]] and (labels, known) == ([[]], [['a']])

def test_features_of_zeros_and_with_signs():
    x = np.array([[0., 0], [-2, 1], [.5, .25]], np.float32)
    looked = Looked(ImageList([image(0)]*3), ['']*3, ['a'], np.array([.5]), np.array([[.1], [.2], [.9]]), x)
    page = review_page(looked)
    whole,unit = (np.frombuffer(base64.b64decode(embedded(page, o)), k) for o,k in (('features', np.int8), ('lengths', np.float32)))
    assert embedded(page, 'data')['signed'] and np.abs(whole.reshape(3, 2)*unit[:,None] - x).max() < .01
    assert looked.uncertain('a').tolist() == [1, 0, 2]
