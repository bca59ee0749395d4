"The widget in JupyterLab, in a real browser: it shows up, answers clicks and shows names from outside as text."
import json, os, shutil, subprocess, sys, time, urllib.request
from pathlib import Path
import pytest
from conftest import free_port

CHROMIUM = next((p for o in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(o))), None)
pytest.importorskip('playwright', reason='playwright is not installed')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here')
CODE = '''import torch
from laso.data.scenes import scenes_folder
from laso.data.folder import read_folder
from laso.features.backbones import create_backbone
from laso.features.extract import extract
from laso.train.recipes import train_ops
from laso.explore import Explorer
images = read_folder(scenes_folder(n_train=200, n_valid=150, size=64), n_shot=1)
images.vocab[0] = '<script>document.title="broken"</script>'
backbone = create_backbone('test_efficientnet', size=64, weights='random')
table = extract(images, backbone)
Explorer(table, images, train_ops(table, epochs=1, n_pairs=512), backbone=backbone)'''

@pytest.fixture(scope='module')
def url(tmp_path_factory):
    "JupyterLab with one notebook of one cell."
    path,port = tmp_path_factory.mktemp('lab'),free_port()
    cell = dict(cell_type='code', id='a', metadata={}, execution_count=None, outputs=[], source=CODE)
    kernel = dict(name='python3', display_name='Python 3', language='python')
    (path/'explore.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    env = dict(os.environ, LASO_CACHE=str(path/'cache'), JUPYTER_CONFIG_DIR=str(path/'config'), JUPYTER_DATA_DIR=str(path/'data'))
    args = ['--no-browser', '--allow-root', f'--port={port}', '--ServerApp.ip=127.0.0.1', '--IdentityProvider.token=',
            f'--ServerApp.root_dir={path}', '--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    p = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *args], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f'http://127.0.0.1:{port}'
    for _ in range(120):
        try: urllib.request.urlopen(f'{base}/api', timeout=1); break
        except OSError: time.sleep(.5)
    yield f'{base}/lab/tree/explore.ipynb'
    p.terminate()
    p.wait(20)

def test_explorer(url, tmp_path):
    from playwright.sync_api import sync_playwright
    shots = Path(os.environ.get('LASO_SCREENSHOTS', tmp_path))
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking'.split()
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        page = browser.new_page(viewport=dict(width=1300, height=1100))
        page.goto(url)
        page.locator('.jp-Cell .cm-content').first.click(timeout=90_000)
        page.wait_for_timeout(3000)   # until the kernel is there
        page.keyboard.press('Shift+Enter')
        try: page.get_by_text('learned operators').first.wait_for(timeout=90_000)
        finally: page.screenshot(path=shots/'start.png')
        name = '<script>document.title="broken"</script>'
        page.locator('.jupyter-widgets select').first.select_option(label=name)
        page.locator('figcaption', has_text=name).first.wait_for()   # the name itself, as text
        page.locator('.jupyter-widgets select').first.select_option(label='any class')
        html = page.locator('.laso-sets .widget-html-content')
        before = html.inner_html()
        page.get_by_role('button', name='Random images').click()
        page.wait_for_function('old => document.querySelector(".laso-sets .widget-html-content").innerHTML != old', arg=before)
        box,query = (page.locator('.jupyter-widgets input[type=text]').nth(i) for i in (0, 1))
        box.fill('x - (y & z)')
        box.press('Enter')
        page.get_by_text('z: ').first.wait_for()
        assert page.locator('.laso-sets figure').count() == 3 + 2*4
        box.fill('x - (')
        box.press('Enter')
        page.wait_for_function('document.querySelectorAll(".laso-sets figure").length == 0')
        box.fill('x & y')
        box.press('Enter')
        page.get_by_text('analytic operators').first.wait_for()
        thumb = page.locator('.jupyter-widgets figcaption').first   # on the shelf
        page.get_by_role('button', name='x', exact=True).first.click()
        page.locator('.laso-sets figcaption', has_text=f'x: {thumb.inner_text()}').first.wait_for()
        page.screenshot(path=shots/'sets.png')
        page.get_by_text('Few shots', exact=True).click()
        page.locator('.jupyter-widgets.jupyter-button', has_text='Run').click()
        page.get_by_text('laso-union').wait_for(timeout=60_000)
        page.screenshot(path=shots/'shots.png')
        page.get_by_text('Search', exact=True).click()
        hits = page.locator('.laso-hits .widget-html-content')
        query.fill('cat - train')
        query.press('Enter')
        hits.get_by_text('1.00').first.wait_for()
        page.screenshot(path=shots/'search.png')
        query.fill('cat - "<i>dog</i>"')
        query.press('Enter')
        hits.get_by_text("found '<i>dog</i>'").wait_for()
        assert hits.locator('figure').count() == 0
        assert 'broken' not in page.title()
        browser.close()
