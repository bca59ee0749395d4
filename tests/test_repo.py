"What is committed fits together: notebooks, the modules and the README made from them, and the metadata."
import ast, importlib.util, json, re, shutil, subprocess, sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions, version
from pathlib import Path
import pytest
from nbdev.doclinks import nbglob

ROOT = Path(__file__).resolve().parent.parent
NBS,LIB = ROOT/'nbs',ROOT/'laso'
NOTEBOOKS = sorted(str(p.relative_to(NBS)) for p in nbglob(NBS, as_path=True))
MODULES = sorted('.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in LIB.rglob('*.py') if p.name != '__init__.py')

def settings():
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(ROOT/'settings.ini', encoding='utf8')
    return ini['DEFAULT']

def contents(folder):
    "The files that count below a folder, with what is in them."
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*')
            if p.is_file() and not re.search(r'__pycache__|\.ipynb_checkpoints|/_[^/]*\.ipynb$|\.last_checked', str(p))}

@pytest.fixture
def repo(tmp_path):
    "A copy of the repository's own files, so that the working tree stays as it is."
    copy = tmp_path/'repo'
    copy.mkdir()
    for name in ('nbs', 'laso'): shutil.copytree(ROOT/name, copy/name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('settings.ini', 'pyproject.toml', 'setup.py', 'README.md', '_quarto.yml'): shutil.copy(ROOT/name, copy/name)
    return copy

def nbdev(command, cwd):
    tool = Path(sys.executable).with_name(command)
    res = subprocess.run([tool], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert res.returncode == 0, res.stdout + res.stderr

@pytest.mark.parametrize('command', ['nbdev-export', 'nbdev-clean'])
def test_generated_files_are_in_step(command, repo):
    before = contents(repo)
    nbdev(command, repo)
    after = contents(repo)
    changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    assert not changed, f'run {command} and commit what it changes: {changed}'

def test_readme_is_index_notebook():
    spec = importlib.util.spec_from_file_location('readme', ROOT/'.ci/readme.py')
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    text,pics = readme.render(NBS/'index.ipynb')
    hint = 'run `python .ci/readme.py` and commit what it changes'
    assert (ROOT/'README.md').read_text(encoding='utf8') == text, hint
    for name,data in pics.items(): assert (NBS/name).read_bytes() == data, hint

def cells(name): return json.loads((NBS/name).read_text(encoding='utf8'))['cells']

def output_text(cell):
    "What the outputs of a cell say, without pictures."
    for o in cell.get('outputs', []):
        yield ''.join(o.get('text', []))
        yield from (''.join(v) for k,v in o.get('data', {}).items() if k.startswith('text/'))

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook_is_fit_to_print(name):
    size = (NBS/name).stat().st_size
    assert size <= 300_000, f'{size} bytes: make its pictures smaller'
    for c in cells(name):
        src = ''.join(c['source'])
        for text in output_text(c):
            found = re.search(r'(?<![\w.])/(tmp|work|root|home|Users|opt|mnt)\b|\w*Warning\b', text)
            assert not found, f'{found[0]!r} in the output of:\n{src[:200]}'
        assert not any(o['output_type'] == 'error' for o in c.get('outputs', [])), f'an error is stored with:\n{src[:200]}'

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_lines_of_code_fit(name):
    long = [l for c in cells(name) if c['cell_type'] == 'code' for l in ''.join(c['source']).splitlines() if len(l) > 120]
    assert not long, 'longer than 120 characters:\n' + '\n'.join(long)

def test_page_names_are_unique():
    names = [re.sub(r'^\d+[a-z]*_', '', Path(n).name) for n in NOTEBOOKS]
    assert len(set(names)) == len(names)

def import_alone(name): importlib.import_module(name)

@pytest.mark.parametrize('name', MODULES)
def test_module_imports_alone(name, in_clean_process):
    status,log = in_clean_process(import_alone, name)
    assert status == 0, log
    assert not log.strip(), f'importing {name} writes:\n{log}'

def imported(path):
    "The top-level packages that a module imports, inside functions too."
    for n in ast.walk(ast.parse(path.read_text(encoding='utf8'))):
        if isinstance(n, ast.Import): yield from (a.name.split('.')[0] for a in n.names)
        if isinstance(n, ast.ImportFrom) and not n.level: yield n.module.split('.')[0]

def normal(name): return re.sub(r'[-_.]+', '-', re.match(r'[\w.-]+', name)[0]).lower()

def test_what_is_imported_is_required():
    kinds = 'requirements', 'log_requirements', 'scale_requirements', 'text_requirements'
    required = {normal(o) for k in kinds for o in settings()[k].split()}
    third = {m for p in LIB.rglob('*.py') for m in imported(p)} - sys.stdlib_module_names - {'laso'}
    missing = {m for m in third if not {normal(d) for d in packages_distributions().get(m, [m])} & required}
    assert not missing, f'add to requirements in settings.ini: {sorted(missing)}'

def test_version():
    import laso
    assert laso.__version__ == version('laso') == settings()['version'], 'after a new version: pip install -e .'

def test_metadata_files_agree():
    text = (ROOT/'pyproject.toml').read_text(encoding='utf8')
    assert f'name = "{settings()["lib_name"]}"' in text
    assert f"\n## {settings()['version']}" in (ROOT/'CHANGELOG.md').read_text(encoding='utf8')
    assert (NBS/'_quarto.yml').is_symlink()

def test_table_of_tests_holds():
    "Every test that the page of differences names exists: the headings on their pages, the files among the tests."
    nbs,text = ROOT/'nbs',(ROOT/'nbs/90_differences.ipynb').read_text(encoding='utf8')
    table = ''.join(''.join(c['source']) for c in json.loads(text)['cells']).partition('## Where each part is tested')[2]
    rows = [r for r in table.splitlines() if r.startswith('| ')][1:]
    assert len(rows) > 25
    for row in rows:
        links,files = re.findall(r'\((\w+\.ipynb)\)(?:, "([^"]+)")?', row),re.findall(r'`(tests/\w+\.py)`', row)
        assert links or files, row
        for page,heading in links:
            page = json.loads((nbs/page).read_text(encoding='utf8'))
            heads = [l.lstrip('# ').replace('`', '') for c in page['cells'] if c['cell_type'] == 'markdown'
                     for l in ''.join(c['source']).splitlines() if l.startswith('#')]
            assert not heading or any(h.startswith(heading) for h in heads), (heading, heads)
        assert all((ROOT/f).is_file() for f in files), row
