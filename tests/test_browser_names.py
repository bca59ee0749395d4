"A report whose names come from a stranger, in a real browser: all of them are text."
import shutil
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from laso.bench.run import BenchConfig, bench
from laso.bench.results import write_report

CHROMIUM = next((p for o in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(o))), None)
pytest.importorskip('playwright', reason='playwright is not installed')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here')
EVIL = ['<script>document.title="broken"</script>', '"><img/src=x/onerror=document.title="broken">', "';document.title='broken';'", '</pre></td><script>document.title="broken"</script>',
        '&lt;b&gt;', '$\\frac{1}$', '[/red]', '{{x}}', '<!--', '<svg/onload=document.title="broken">', '=1+1', '_hidden']

@pytest.fixture(scope='module')
def page():
    from playwright.sync_api import sync_playwright
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking'.split()
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield browser.new_page()
        browser.close()

def shown(page, file, *names):
    "Open a page; its scripts, images and title are its own, and the names are on it as text."
    page.goto(file.as_uri())
    page.wait_for_timeout(300)
    text = page.evaluate('document.documentElement.innerText')
    assert 'broken' not in page.title() or page.title().startswith('laso on ')
    assert page.locator('script').count() == 1 and page.locator('svg').count() == 0
    assert all(o.startswith('data:image/png;base64,') for o in page.eval_on_selector_all('img', 'all => all.map(o => o.src)'))
    for o in names: assert o in text, o
    page.locator('th').first.click()   # sorting leaves it so
    assert page.locator('script').count() == 1 and page.evaluate('document.documentElement.innerText').count('onerror') == text.count('onerror')

def test_report_of_a_run(page, tmp_path, monkeypatch):
    "A folder whose classes are called so, through the whole benchmark."
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    (tmp_path/'<b>data').mkdir()
    data = tmp_path/'<b>data'
    (data/'images').mkdir()
    rng = np.random.default_rng(0)
    rows = [(f'{i:03}.png', f'{EVIL[i % 12]} {EVIL[(i+1+i//12) % 12]}', i % 3 == 2) for i in range(120)]
    for name,*_ in rows: Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(data/'images'/name)
    pd.DataFrame(rows, columns=['fname', 'labels', 'is_valid']).to_csv(data/'labels.csv', index=False)
    (data/'classes.txt').write_text('\n'.join(EVIL))   # which says what is a name and what a separator
    (data/'novel.txt').write_text('\n'.join(EVIL[:3]))
    out = tmp_path/'out'
    bench(BenchConfig(str(data), 'test_efficientnet', 'random', 32, frozen=True, episodes=1, ops='analytic', n_pairs=30), out=out, command=f'laso bench --data {data}', show=False)
    shown(page, out/'report.html', *EVIL, '<b>data')

def test_report_of_names_everywhere(page, tmp_path):
    "Titles, cells, columns, settings, the command and the names of images."
    name = EVIL[0]
    table = pd.DataFrame({'a': [name, EVIL[1]], EVIL[3]: [1, 2]}, index=pd.Index([name, EVIL[9]], name=EVIL[1]))
    Image.new('RGB', (2, 2)).save(tmp_path/'" onerror="document.title=`broken`.png')
    res = dict(data=dict(name=name, n_train=1, n_valid=1, base=EVIL, novel=EVIL), command=EVIL[3], config={name: EVIL[1]}, timings={EVIL[9]: 1})
    write_report(res, {name: table}, tmp_path)
    shown(page, tmp_path/'report.html', *EVIL)
    assert page.title() == f'laso on {name}'
