"The page of `laso review` in a real browser: keys and clicks, expressions as in Python, names that are only names, thousands of photographs."
import csv, random, re, shutil
import numpy as np
import pytest, torch
from helpers import image
from PIL import Image, ImageDraw
from laso.core import from_cell, InputError, split_names
from laso.evaluate.metrics import average_precision
from laso.features.backbones import create_backbone
from laso.ops.evaluation import Expression
from laso.ops.kinds import Features, set_ops
from laso.ops.search import Degrees
from laso.tag.images import ImageList, read_taught
from laso.tag.review import Looked, look, thumbnail, to_whole, write_review
from laso.tag.tagger import FewShotTagger

CHROMIUM = next((p for o in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(o))), None)
pytest.importorskip('playwright', reason='playwright is not installed')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here')

@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking'.split()
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield b
        b.close()

@pytest.fixture
def opened(browser):
    "`opened(file)`: a page; it wrote no error and asked for nothing."
    context,wrong = browser.new_context(viewport=dict(width=1280, height=900)),[]
    def get(file):
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on('pageerror', lambda e: wrong.append(str(e)))
        page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
        page.on('request', lambda r: None if r.url.startswith(('data:', 'blob:', file.as_uri())) else wrong.append(r.url))
        page.goto(file.as_uri())
        page.locator('.card').first.wait_for()
        return page
    yield get
    context.close()
    assert not wrong

def made_up(n=60, tags=('cat', 'dog', 'hot dog', 'don\'t', 'Zoë'), d=12, seed=0, names=None, signed=False):
    "Numbers without a tagger."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) if signed else rng.random((n, d))**3
    images,some = names or [f'/photos/{i}.jpg' for i in range(n)],[thumbnail(image(i)) for i in range(5)]
    p = rng.random((n, len(tags))).round(3)
    return Looked(ImageList(images), [some[i % 5] for i in range(n)], list(tags), rng.uniform(.2, .7, len(tags)), p, x.astype(np.float32))

def shown(page): return page.evaluate('order')

def saved(page, path):
    "The rows of corrections.csv."
    with page.expect_download() as d: page.get_by_role('button', name='Save corrections.csv').click()
    assert d.value.suggested_filename == 'corrections.csv'
    d.value.save_as(path)
    with open(path, encoding='utf8', newline='') as f: rows = list(csv.reader(f))
    assert rows[0] == ['fname', 'labels', 'known']
    return {from_cell(f): (split_names(from_cell(l)), split_names(from_cell(k))) for f,l,k in rows[1:]}

# ---- Ten corrections

def squares(i):
    "An image with up to three large squares, and their colours."
    rng,tags = np.random.default_rng(i),[]
    im = Image.fromarray(rng.integers(60, 200, (3, 3, 3), np.uint8)).resize((64, 64))
    for tag,c in dict(red=(220, 40, 30), green=(40, 190, 60), blue=(40, 70, 220)).items():
        if rng.random() >= .35: continue
        (x,y),side = rng.integers(0, 36, 2).tolist(),int(rng.integers(18, 30))
        ImageDraw.Draw(im).rectangle((x, y, x+side, y+side), fill=tuple((np.array(c)+rng.integers(-30, 30, 3)).clip(0, 255).tolist()))
        tags.append(tag)
    return im,tags

@pytest.fixture(scope='module')
def taught(tmp_path_factory):
    "A tagger that has seen two images of each colour, and the colours of others."
    path,tags = tmp_path_factory.mktemp('squares'),['blue', 'green', 'red']
    images,truth = zip(*map(squares, range(200)))
    some = sorted({i for t in tags for i in [i for i in range(50) if t in truth[i]][:2]})
    tagger = FewShotTagger.teach([images[i] for i in some], [truth[i] for i in some], backbone=create_backbone(size=64), ops=None, show=False)
    for i in range(50, 200): images[i].save(path/f'{i}.png')
    return tagger,{path/f'{i}.png': truth[i] for i in range(50, 200)}

def scores(tagger, truth, files):
    "Average precision of each tag."
    y = torch.tensor([[float(t in truth[f]) for t in tagger.tags] for f in files])
    return average_precision(torch.from_numpy(tagger.predict_proba(files, show=False)), y)

def test_ten_corrections(taught, opened, tmp_path):
    "Of the weakest tag: five by keyboard, five by mouse, saved, taught again."
    tagger,truth = taught
    files = list(truth)
    looked,t = look(tagger, files, show=False),scores(tagger, truth, files).argmin()
    tag = tagger.tags[t]
    page = opened(write_review(tmp_path/'review.html', looked))
    page.locator('#tag').select_option(label=tag)
    first = [files[i] for i in shown(page)[:11]]
    assert first == [files[i] for i in looked.uncertain(tag)[:11]]
    page.locator('.card').first.focus()
    for f in first[:5]: page.keyboard.press('y' if tag in truth[f] else 'n')
    page.keyboard.press('?')   # the sixth one
    for k,f in enumerate(first[6:], 6):
        page.locator('.card').nth(k).get_by_role('button', name=f'shows {tag}' if tag in truth[f] else f'does not show {tag}', exact=True).click()
    sure = [f for k,f in enumerate(first) if k != 5]
    assert '11 marked' in page.inner_text('#counts') and ', 1 ?' in page.inner_text('#counts')
    page.close()
    page = opened(tmp_path/'review.html')   # a closed tab loses nothing
    assert '11 marked' in page.inner_text('#counts')
    page.locator('#tag').select_option(label=f'{tag} (11 marked)')
    assert {files[i] for i in shown(page)[-11:]} == {*first}   # which come last
    rows = saved(page, tmp_path/'corrections.csv')
    assert rows == {str(f): ([tag]*(tag in truth[f]), [tag]) for f in sure}
    rest = [f for f in files if f not in first]
    before = scores(tagger, truth, rest)
    assert page.inner_text('#status').endswith(f'--root {files[0].parent}')
    images,labels,known = read_taught(tmp_path/'corrections.csv', root=files[0].parent)
    assert {str(i): (l, k) for i,l,k in zip(images, labels, known)} == rows
    after = scores(tagger.add(images, labels, known=known), truth, rest)
    assert after[t] > before[t] + .1 and after.mean() > before.mean()

# ---- Expressions

def by_python(looked, text):
    e = Expression(text, least=1)
    at = {re.sub(r'\W+', ' ', t).lower(): i for i,t in enumerate(looked.tags)}
    p = torch.from_numpy(looked.probs)
    return e(**{o: Degrees(p[:,at[re.sub(r'[\W_]+', ' ', o).lower()]]) for o in e.names}).p

def expression(rng, names, depth=3):
    if depth == 0 or rng.random() < .25: return rng.choice(names)
    a,b = (expression(rng, names, depth-1) for _ in 'ab')
    text = f"{a}{rng.choice(['|', ' & ', ' - ', '-'])}{b}"
    return f'({text})' if rng.random() < .4 else text

def test_search_is_that_of_python(opened, tmp_path):
    looked,rng = made_up(),random.Random(0)
    page = opened(write_review(tmp_path/'review.html', looked))
    names = ['cat', '"cat"', "'dog'", '"hot dog"', 'Hot_Dog', 'DOG', '"don\'t"', 'Zoë']
    for text in [expression(rng, names) for _ in range(60)]:
        found = page.evaluate('text => fits(parse(text), degree)', text)
        assert np.abs(np.array(found) - by_python(looked, text).numpy()).max() < 1e-6, text
    for bad in ['', 'cat dog', 'cat and dog', 'cat +', 'cat -', '2 & cat', 'cat.dog', '(cat', 'cat)', '-cat', '""', '"cat', 'cat || dog', '()']:
        with pytest.raises(InputError): Expression(bad, least=1)
        assert page.evaluate("text => { try { parse(text); return 'read' } catch (e) { return e.message } }", bad).startswith('Expected'), bad

def test_search_on_the_page(opened, tmp_path):
    "What fits by decision comes first; marks count, and what is asked for is what marks are of."
    looked = made_up()
    page = opened(write_review(tmp_path/'review.html', looked))
    page.keyboard.press('/')
    page.keyboard.type('"hot dog" - dog')
    page.keyboard.press('Enter')
    p,taken = by_python(looked, '"hot dog" - dog').numpy(),looked.probs >= looked.thresholds
    sure = taken[:,2] & ~taken[:,1]
    order = [*sorted(np.flatnonzero(sure), key=lambda i: -p[i]), *sorted(np.flatnonzero(~sure & (p >= .01)), key=lambda i: -p[i])]
    np.testing.assert_array_equal(shown(page), order)
    assert page.locator('#tag').evaluate('o => o.selectedIndex') == 2 and f'{sure.sum()} fit' in page.inner_text('#status')
    page.keyboard.press('n')   # the first card has the focus
    page.locator('#search').press('Enter')
    page.locator('#show').select_option('yes')
    assert order[0] not in shown(page) and page.evaluate('i => fits(parse("hot_dog"), degree)[i]', int(order[0])) == 0
    page.locator('#search').fill('catt')
    page.locator('#search').press('Enter')
    assert page.locator('.card').count() == 0 and 'found catt' in page.inner_text('#status')

@pytest.mark.parametrize('signed', [False, True])
def test_likeness_is_that_of_python(signed, opened, tmp_path):
    looked = made_up(signed=signed)
    page = opened(write_review(tmp_path/'review.html', looked))
    for k in (0, 3, 7): page.locator('.card').nth(k).get_by_role('button', name='mark for likeness').click()
    letters = page.evaluate('letters')
    assert list(letters.items()) == [(o, shown(page)[k]) for o,k in zip('ABC', (0, 3, 7))]
    whole,unit = to_whole(looked.x)
    x = torch.from_numpy(whole*unit[:,None])
    ops = set_ops('blend', x.shape[1])
    for text in ['A', 'A - B', 'b & a', 'A | B', 'A - (B & C)', '(A | B) - C', 'A&B|C', 'C - B - A', 'A - B & C', 'A | (C & (B - A))']:
        want = Expression(text, least=1)(**{k: Features(x[[i]], ops) for o,i in letters.items() for k in (o, o.lower())}).x[0]
        got = torch.tensor(list(page.evaluate('text => [...wantedFeatures(text)]', text)))
        assert torch.allclose(got, want.float(), atol=1e-4), text
        page.locator('#like').fill(text)
        page.locator('#like').press('Enter')
        near = torch.cosine_similarity(x, want[None], dim=1)
        order = sorted({*range(len(x))} - {*letters.values()}, key=lambda i: -near[i])
        assert [near[i].item() for i in shown(page)] == pytest.approx([near[i].item() for i in order], abs=1e-5)
    page.locator('#like').fill('A - D')
    page.locator('#like').press('Enter')
    assert 'marked A, B, C, found D' in page.inner_text('#status')
    page.get_by_role('button', name='B ×').click()
    assert list(page.evaluate('letters')) == ['A', 'C']

# ---- Names from anywhere

EVIL = ['</script><script>document.title="broken"</script>', '"><img src=x onerror=document.title="broken">', "';document.title='broken';'", '<!--', '${1}',
        '{{x}}', '=1+1', '-5', 'hot dog', 'a,b', "'quoted'", 'a\\"b', 'کتاب‌ها', '👨‍👩‍👧', '犬\u3000小', '&lt;', '@home', "'=x"]

def test_names_are_names(opened, tmp_path):
    "Shown as text, and read back from corrections.csv as they are."
    names = [tmp_path/'<b>'/re.sub(r'[/\0]', '', f'{o}.jpg') for o in EVIL]
    page = opened(write_review(tmp_path/'review.html', made_up(len(EVIL), EVIL, names=names)))
    for t,tag in enumerate(EVIL):
        page.locator('#tag').select_option(str(t))
        assert tag.replace('\u3000', ' ') in page.locator('.card .said').first.inner_text().replace('\u3000', ' ')
        page.evaluate('([i, t]) => { setMark(i, t, 1); setMark(i, (t+1) % m, 0) }', [t, t])
    rows = saved(page, tmp_path/'corrections.csv')
    assert rows == {str(f): ([EVIL[i]], [EVIL[k] for k in sorted([i, (i+1) % len(EVIL)])]) for i,f in enumerate(names)}
    assert not [c for r in csv.reader(open(tmp_path/'corrections.csv', encoding='utf8', newline='')) for c in r if c[:1] in tuple('=+-@')]
    assert 'broken' not in page.title() and page.locator('script:not([type])').count() == 1 and page.locator('.card img[onerror]').count() == 0

# ---- Many, and small

def test_thousands(opened, tmp_path):
    "Only what is in sight is there, wherever one is, and keys lead everywhere."
    page = opened(write_review(tmp_path/'review.html', made_up(3000)))
    page.locator('.card').first.focus()
    for key,k in (('End', 2999), ('ArrowLeft', 2998), ('Home', 0), ('ArrowRight', 1), ('ArrowUp', 1)):
        page.keyboard.press(key)
        assert page.evaluate('Number(document.activeElement.dataset.position)') == k
        box = page.locator('.card:focus').bounding_box()
        assert box['y'] >= 0 and box['y'] + box['height'] <= 900 and page.locator('.card').count() < 100
    columns = page.evaluate('sizes().columns')
    for i in range(1, 6):
        page.keyboard.press('ArrowDown')
        assert page.evaluate('current') == 1 + i*columns
    for share in (.3, .9, .1):
        page.evaluate('share => scrollTo(0, share*document.documentElement.scrollHeight)', share)
        page.wait_for_function('![...cards.values()].every(c => c.getBoundingClientRect().top > innerHeight || c.getBoundingClientRect().bottom < 0)')
        positions = page.eval_on_selector_all('.card', 'all => all.map(o => Number(o.dataset.position))')
        assert positions == [*range(positions[0], positions[0]+len(positions))] and len(positions) < 100
    page.keyboard.press('y')   # of the card that was chosen, though it is out of sight
    assert page.evaluate('Object.keys(marks)') == [str(shown(page)[1 + 5*columns])]
    assert page.evaluate('current') == 2 + 5*columns

@pytest.mark.parametrize('width', [390, 1280])
def test_fits_and_is_named(width, opened, tmp_path):
    "No scrolling to the side, a name for everything that can be used, in the order of the keyboard."
    page = opened(write_review(tmp_path/'review.html', made_up()))
    page.set_viewport_size(dict(width=width, height=844))
    assert page.evaluate('document.documentElement.scrollWidth') == width
    page.locator('.card').first.wait_for()
    small = page.eval_on_selector_all('.card:first-child button', 'all => all.map(o => o.offsetHeight)')
    assert min(small) >= 36
    for role,name in (('combobox', 'Tag'), ('combobox', 'Show'), ('searchbox', 'Search'), ('searchbox', 'Like')):
        assert page.get_by_role(role, name=name, exact=True).count() == 1
    assert page.eval_on_selector_all('img', 'all => all.every(o => o.alt)')
    assert page.eval_on_selector_all('.card', 'all => all.every(o => o.ariaLabel && o.ariaPosInSet && o.ariaSetSize)')
    assert page.locator('.card[tabindex="0"]').count() == 1

def test_all_tags_at_once(opened, tmp_path):
    "As they stand: what was marked stays, the others are as the tagger decided; again, and all is open."
    looked = made_up()
    page = opened(write_review(tmp_path/'review.html', looked))
    page.locator('.card').first.focus()
    i,j = shown(page)[:2]
    page.keyboard.press('y' if looked.probs[i,0] < looked.thresholds[0] else 'n')
    page.keyboard.press('ArrowLeft')
    page.keyboard.press('a')
    page.locator('.card').nth(1).get_by_role('button', name='all tags are as they stand').click()
    taken = looked.probs >= looked.thresholds
    taken[i,0] = ~taken[i,0]
    rows = saved(page, tmp_path/'corrections.csv')
    assert rows == {f'/photos/{k}.jpg': ([t for t,o in zip(looked.tags, taken[k]) if o], looked.tags) for k in (i, j)}
    assert page.inner_text('#counts').endswith(', 1 against the tagger')
    page.locator('.card').nth(1).get_by_role('button', name='all tags are as they stand').click()
    assert page.evaluate('Object.keys(marks)') == [str(i)]

def test_marks_are_taken_back(opened, tmp_path):
    page = opened(write_review(tmp_path/'review.html', made_up()))
    other = opened(tmp_path/'review.html')   # in another tab
    save = page.get_by_role('button', name='Save corrections.csv')
    assert save.is_disabled()
    page.locator('.card').first.focus()
    page.keyboard.press('?')
    assert save.is_disabled()   # who only does not know says nothing
    page.keyboard.press('y')
    assert not save.is_disabled()
    other.wait_for_function("document.getElementById('counts').textContent.startsWith('2 marked')", polling=50)
    page.keyboard.press('ArrowLeft')
    page.keyboard.press('y')   # the same again
    assert page.inner_text('#counts').startswith('1 marked') and page.evaluate('current') == 1
    page.on('dialog', lambda o: o.accept())
    page.get_by_role('button', name='Take all marks back').click()
    assert page.inner_text('#counts') == 'nothing marked yet'
