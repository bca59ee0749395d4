"The front door: what the README and the site begin with, tutorials, alternative texts, folded tests, the explorer's command."
import importlib.util, json, re
from pathlib import Path
import pytest, yaml
from nbformat import NotebookNode
from nbformat.v4 import new_output
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/'nbs'
PAGES = sorted(p for p in NBS.rglob('*.ipynb') if not p.name.startswith('_') and '.ipynb_checkpoints' not in str(p))

def cells(path): return json.loads(path.read_text(encoding='utf8'))['cells']

def source(cell): return ''.join(cell['source'])

def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT/f'.ci/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def tutorials():
    side = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf8'))['website']['sidebar']['contents']
    assert (side[0]['href'], side[1]['section']) == ('index.ipynb', 'Tutorials')   # first in the sidebar
    return side[1]['contents']

# what people type into the search box, and the page that they should find
WORDS = {'tag my photographs': 'your_photographs', 'auto-tagging': 'your_photographs', 'correct it': 'correct', 'wrong': 'correct',
         'mistakes': 'correct', 'digikam': 'into_digikam', 'lightroom': 'into_digikam', 'darktable': 'into_digikam', 'xmp': 'into_digikam',
         'keywords': 'into_digikam', 'spreadsheet': 'from_spreadsheet', 'excel': 'from_spreadsheet', 'csv': 'from_spreadsheet',
         'search my photographs': 'search_photographs', 'find photographs': 'search_photographs', 'share a tagger': 'share_tagger',
         'hugging face': 'share_tagger', 'use another network': 'other_networks', 'clip': 'other_networks', 'dinov2': 'other_networks',
         'my own embeddings': 'own_embeddings', 'vectors': 'own_embeddings', 'add my method': 'own_method', 'compare two runs': 'compare_runs'}

def test_tutorials_are_found_by_the_words_that_people_use():
    shown = tutorials()
    assert len({*WORDS.values()}) == 10 and shown[:10] == [f'tutorials/{o}.ipynb' for o in dict.fromkeys(WORDS.values())]
    assert sorted(shown) == sorted(f'tutorials/{p.name}' for p in (NBS/'tutorials').glob('*.ipynb'))
    for words,page in WORDS.items():   # the title and the line of keywords, which are what the search finds first
        title = source(cells(NBS/f'tutorials/{page}.ipynb')[0]).lower()
        assert words in title and '\n- keywords: ' in title, f'{words!r} does not find {page}: {title}'

def test_the_search_knows_keywords(tmp_path):
    (tmp_path/'search.json').write_text('[{"href": "rest.html"}]')
    load('docs').add_keywords(tmp_path)
    *entries,rest = json.loads((tmp_path/'search.json').read_text())
    found = {e['section'].lower(): e['href'] for e in entries}
    assert rest == dict(href='rest.html') and {o['title'] for o in entries if o['section'] == 'CSV'} == {'From a spreadsheet'}
    for words in ('xmp', 'excel', 'mistakes', 'wrong tags', 'embeddings', 'clip'): assert words in found
    for href in found.values(): assert (NBS/href.replace('.html', '.ipynb')).is_file()

def test_the_start_page_begins_with_what_it_does():
    readme = (ROOT/'README.md').read_text(encoding='utf8')
    places = [readme.index(o) for o in ('Photographs in, tags out', '![', 'laso teach examples', 'laso tag my.tagger', 'laso review my.tagger',
                                        '## Operators on features')]
    assert places == sorted(places)
    assert len(readme[:places[1]].split()) < 100 and 'has the commands' in readme
    for page in dict.fromkeys(WORDS.values()): assert f'tutorials/{page}.ipynb' in readme

def has_image(output):
    data = output.get('data', {})
    return any(k.startswith('image/') for k in data)

def shown(cell):
    return not re.search(r'^#\|\s*(hide|include: *false|output: *false)', source(cell), flags=re.M)

@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.stem)
def test_images_have_alternative_texts(path):
    for c in cells(path):
        if c['cell_type'] == 'markdown':
            assert '![](' not in source(c), source(c)
            continue
        if not shown(c): continue
        alt = re.search(r'^#\|\s*fig-alt:\s*"?(.+?)"?$', source(c), flags=re.M)
        assert alt or not any(map(has_image, c.get('outputs', []))), f'give it a line #| fig-alt: …\n{source(c)[:200]}'
        for o in c.get('outputs', []):
            for tag in re.findall(r'<img\b[^>]*>', ''.join(o.get('data', {}).get('text/html', ''))): assert re.search(r'\balt="[^"]', tag), tag

def test_readme_shows_alternative_texts():
    text,pics = load('readme').render(NBS/'index.ipynb')
    assert len(pics) == len(re.findall(r'!\[[^\]]{20,}\]\(nbs/images/', text)) == text.count('![')
    assert sorted(pics) == sorted(f'images/{p.name}' for p in (NBS/'images').glob('index-*'))

@pytest.mark.parametrize('code,outputs,folds', [
    ('test_eq(f(1), 2)', [], True), ('x = f(1)\nassert x == 2', [], True), ("with expect_fail(ValueError, contains='a'): f()", [], True),
    ('test_eq(f(1), 2)\nf(3)', [{}], False), ("backbone('test_efficientnet')", [], False), ('x = f(1)', [], False)])
def test_cells_that_only_test_are_folded(code, outputs, folds):
    assert load('docs').only_tests(dict(cell_type='code', source=code, outputs=outputs)) == folds

def test_most_tests_of_the_pages_are_folded():
    docs = load('docs')
    every = [c for p in PAGES if p.parent.name not in ('tutorials', 'about') for c in cells(p) if c['cell_type'] == 'code' and shown(c)]
    tests = [c for c in every if re.search(r'^(assert |test_(eq|close)\()', source(c), flags=re.M)]
    assert sum(map(docs.only_tests, tests)) > 200   # the others show something, too

def test_explore_writes_a_notebook_and_opens_jupyterlab(tmp_path, monkeypatch):
    from laso.cli import app
    from laso.core import InputError
    from laso.ops.kinds import set_ops
    def run(*args): return CliRunner().invoke(app, ['explore', str(tmp_path), *args])
    assert isinstance(run().exception, InputError) and 'laso bench' in str(run().exception)
    set_ops('analytic', 8).save(tmp_path)
    (tmp_path/'results.json').write_text('{}')
    called = []
    monkeypatch.setattr('subprocess.run', lambda args, **kw: called.append(args))
    assert run('--no-open').exit_code == 0 and not called
    notebook = tmp_path/'explore.ipynb'
    [cell] = json.loads(notebook.read_text())['cells']
    assert cell['source'].splitlines()[-1] == f'explorer({str(tmp_path)!r})'
    compile(cell['source'], 'explore.ipynb', 'exec')
    notebook.write_text('mine')
    res = run()
    assert res.exit_code == 0 and called == [[*called[0][:2], 'jupyterlab', str(notebook)]] and 'Shift+Enter' in res.output
    assert notebook.read_text() == 'mine'   # what is there stays
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert 'install it with pip install jupyterlab' in str(run().exception)

def test_galleries_say_how_often_they_are_right():
    for page in ('ops/45_gallery', 'tutorials/image_tour'):
        calls = [source(c) for c in cells(NBS/f'{page}.ipynb') if any(map(has_image, c.get('outputs', []))) and re.search(r'\bgallery\(', source(c))]
        assert calls and all('many=' in o for o in calls)
    measured = (NBS/'results/gallery.csv').read_text().splitlines()
    assert measured[0] == 'classes,operation,operators,exact,part,none,possible' and len(measured) == 13

def shows(**data): return NotebookNode(outputs=[new_output('display_data', data={f'text/{k}': v for k,v in data.items()})])

def prints(text): return NotebookNode(outputs=[new_output('stream', name='stdout', text=text), new_output('stream', name='stderr', text='warning')])

def test_stored_outputs_are_compared_by_their_words():
    said = load('outputs').said
    assert said(shows(plain='union 0.713 at 1e-5')) == said(shows(plain='union  .68 at 2.5')) == ['union', '#', 'at', '#']
    assert said(shows(plain='a b\n...', html='<style>td {}</style><td>a</td><td>b &amp; c</td>')) == ['a', 'b', '&', 'c']   # all columns
    assert said(shows(plain='<Styler at 0x7f1b>')) == said(shows(plain='<Styler at 0xee01>')) == ['<Styler']
    assert said(prints('│ union │')) == said(shows(plain='Table()', html='<pre>│ union │</pre>'))   # as Rich does in a kernel
    assert said(shows(plain='pictures')) != said(shows(plain='images')) and said(NotebookNode(outputs=[])) == []
