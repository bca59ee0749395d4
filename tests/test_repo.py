"What is committed fits together: notebooks, the modules and README made of them, and the metadata."
import ast, importlib.util, json, re, shutil, subprocess, sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions, version
from pathlib import Path
import pytest
from nbdev.doclinks import nbglob

ROOT = Path(__file__).resolve().parent.parent
NBS,LIB = ROOT/'nbs',ROOT/'laso'
NOTEBOOKS = sorted(str(p.relative_to(NBS)) for p in nbglob(NBS, as_path=True))
MODULES = sorted('.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in LIB.rglob('*.py')
                 if p.name != '__init__.py')

def settings():
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(ROOT/'settings.ini', encoding='utf8')
    return ini['DEFAULT']

def contents(folder):
    "The files that count below a folder, with what is in them."
    skip = r'__pycache__|\.ipynb_checkpoints|/_[^/]*\.ipynb$|\.last_checked'
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*')
            if p.is_file() and not re.search(skip, str(p))}

@pytest.fixture
def repo(tmp_path):
    "A copy of the repository's own files, so that the working tree stays as it is."
    copy,skip = tmp_path/'repo',shutil.ignore_patterns('__pycache__')
    copy.mkdir()
    for name in ('nbs', 'laso'): shutil.copytree(ROOT/name, copy/name, symlinks=True, ignore=skip)
    for name in ('settings.ini', 'pyproject.toml', 'setup.py', 'README.md', '_quarto.yml'):
        shutil.copy(ROOT/name, copy/name)
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
        errors = [o for o in c.get('outputs', []) if o['output_type'] == 'error']
        assert not errors, f'an error is stored with:\n{src[:200]}'

def code_cells(name): return [''.join(c['source']) for c in cells(name) if c['cell_type'] == 'code']

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_lines_of_code_fit(name):
    long = [l for src in code_cells(name) for l in src.splitlines() if len(l) > 100]
    assert not long, 'longer than 100 characters:\n' + '\n'.join(long)

def exported(src):
    "The lines of a cell that go into the module, blank ones aside."
    if not re.search(r'^#\|\s*exports?\b', src, flags=re.M): return []
    return [l for l in src.splitlines() if l.strip() and not l.startswith('#|')]

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_exported_code_is_short(name):
    sizes = [exported(src) for src in code_cells(name)]
    long = [lines for lines in sizes if len(lines) > 30]
    assert not long, 'split cells of more than 30 lines: ' + '; '.join(lines[0] for lines in long)
    assert sum(map(len, sizes)) <= 300, 'split the page'

def test_page_names_are_unique():
    names = [re.sub(r'^\d+_', '', Path(n).name) for n in NOTEBOOKS]
    assert len(set(names)) == len(names)

# What may import what

def place(page):
    "The module that a numbered page makes, and its number."
    m = re.fullmatch(r'(\d+)_(\w+)\.ipynb', Path(page).name)
    return m and ('.'.join(('laso', *Path(page).parent.parts, m[2])), int(m[1]))

NUMBERS = dict(filter(None, map(place, NOTEBOOKS)))
WRITTEN = [m for m in MODULES if m != 'laso._modidx']   # in a notebook

def absolute(module, node):
    "The name of the module that a `from … import` reads."
    if not node.level: return node.module
    return '.'.join([*module.split('.')[:-node.level], *([node.module] if node.module else [])])

def imports(module):
    "What a module imports of laso, as (module, name or None, is it in a function?)."
    path = (ROOT/module.replace('.', '/')).with_suffix('.py')
    tree = ast.parse(path.read_text(encoding='utf8'))
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    inside = {id(n) for f in functions for n in ast.walk(f)}
    for n in ast.walk(tree):
        if isinstance(n, ast.Import):
            for a in n.names:
                if a.name.split('.')[0] == 'laso': yield a.name, None, id(n) in inside
        if isinstance(n, ast.ImportFrom) and absolute(module, n).split('.')[0] == 'laso':
            for a in n.names:
                whole = f'{absolute(module, n)}.{a.name}'
                if whole in MODULES: yield whole, None, id(n) in inside
                else: yield absolute(module, n), a.name, id(n) in inside

def test_a_module_is_made_by_a_numbered_page():
    assert sorted(NUMBERS) == WRITTEN
    assert len({*NUMBERS.values()}) == len(NUMBERS), 'two pages have the same number'

@pytest.mark.parametrize('module', WRITTEN)
def test_imports_name_what_is_public(module):
    names = [(m, o) for m,o,_ in imports(module) if o]
    bad = [f'{m}: {o}' for m,o in names if o == '*' or o.startswith('_')]
    assert not bad, f'import public names one by one, not {bad}'
    assert not [m for m,o in names if m not in MODULES and m != 'laso'], names

@pytest.mark.parametrize('module', WRITTEN)
def test_what_is_imported_in_a_function_exists(module):
    for m,o,_ in imports(module):
        found = importlib.import_module(m)
        assert o is None or hasattr(found, o) or importlib.import_module(f'{m}.{o}'), (m, o)

def modules_by_name(module, tree):
    "The names that stand for modules of laso in a module, in functions too."
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom):
            for a in n.names:
                if f'{absolute(module, n)}.{a.name}' in MODULES: yield a.asname or a.name
        if isinstance(n, ast.Import):
            yield from (a.asname for a in n.names if a.asname and a.name in MODULES)

@pytest.mark.parametrize('module', WRITTEN)
def test_private_names_are_used_in_their_module_only(module):
    tree = ast.parse((ROOT/module.replace('.', '/')).with_suffix('.py').read_text(encoding='utf8'))
    names = set(modules_by_name(module, tree))
    bad = [f'{n.value.id}.{n.attr}' for n in ast.walk(tree) if isinstance(n, ast.Attribute)
           and isinstance(n.value, ast.Name) and n.value.id in names and n.attr.startswith('_')]
    assert not bad, f'private names of other modules: {bad}'

@pytest.mark.parametrize('module', WRITTEN)
def test_imports_lead_down(module):
    "From pages with smaller numbers only: no circle. Commands import the lab when they need it."
    up = [m for m,_,lazy in imports(module) if m in NUMBERS and NUMBERS[m] >= NUMBERS[module]
          and not (lazy and module in ('laso.cli', 'laso.bench.run') and m.startswith('laso.lab.'))]
    assert not up, f'{module} imports from above: {up}'

def package(module): return module.split('.')[1] if module.count('.') > 1 else ''

def test_packages_are_in_order():
    "The numbers of a package's pages lie side by side, and the packages are in this order."
    order = [package(m) for m in sorted(NUMBERS, key=NUMBERS.get) if package(m)]
    runs = [p for p,before in zip(order, ['', *order]) if p != before]
    assert runs == 'data evaluate features ops train fewshot bench tag lab'.split()

def top_imports(module):
    "What a module imports when it is imported, of any package."
    path = (ROOT/module.replace('.', '/')).with_suffix('.py')
    for n in ast.parse(path.read_text(encoding='utf8')).body:
        if isinstance(n, ast.Import): yield from (a.name.split('.')[0] for a in n.names)
        if isinstance(n, ast.ImportFrom) and not n.level: yield n.module.split('.')[0]

@pytest.mark.parametrize('module', WRITTEN)
def test_fastai_is_for_training(module):
    assert 'fastai' not in top_imports(module) or package(module) in ('train', 'lab')

def loaded(code):
    "The packages that a fresh interpreter has loaded after `code`."
    code += '\nimport sys\nprint(*{m.split(".")[0] for m in sys.modules})'
    cmd = [sys.executable, '-c', code]
    res = subprocess.run(cmd, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return {*res.stdout.split()}

@pytest.mark.parametrize('code,kept,absent', [
    ('import laso', 'laso', 'torch numpy PIL timm fastai matplotlib pandas sklearn scipy'),
    ('from laso.tag.tagger import FewShotTagger', 'laso torch', 'fastai matplotlib statsmodels'),
    ('import laso.cli', 'laso typer', 'torch numpy fastai matplotlib statsmodels')])
def test_what_an_import_loads(code, kept, absent):
    names = loaded(code)
    assert {*kept.split()} <= names
    assert not {*absent.split()} & names

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
    kinds = [k for k in settings() if k.endswith('requirements') and k != 'dev_requirements']
    required = {normal(o) for k in kinds for o in settings()[k].split()}
    third = {m for p in LIB.rglob('*.py') for m in imported(p)} - sys.stdlib_module_names - {'laso'}
    names = packages_distributions()
    missing = {m for m in third if not {normal(d) for d in names.get(m, [m])} & required}
    assert not missing, f'add to requirements in settings.ini: {sorted(missing)}'

def test_version():
    import laso
    versions = {laso.__version__, version('laso'), settings()['version']}
    assert len(versions) == 1, f'{versions}; after a new version: pip install -e .'

def test_metadata_files_agree():
    text = (ROOT/'pyproject.toml').read_text(encoding='utf8')
    assert f'name = "{settings()["lib_name"]}"' in text
    assert f"\n## {settings()['version']}" in (ROOT/'CHANGELOG.md').read_text(encoding='utf8')
    assert (NBS/'_quarto.yml').is_symlink()

def test_table_of_tests_holds():
    "The tests that the page of differences names exist: headings on their pages, files here."
    about = NBS/'about/differences.ipynb'
    text = ''.join(''.join(c['source']) for c in cells('about/differences.ipynb'))
    table = text.partition('## Where each part is tested')[2]
    rows = [r for r in table.splitlines() if r.startswith('| ')][1:]
    assert len(rows) > 25
    for row in rows:
        links = re.findall(r'\(([\w./]+\.ipynb)\)(?:, "([^"]+)")?', row)
        files = re.findall(r'`(tests/\w+\.py)(?:::(\w+))?`', row)
        assert links or files, row
        for link,heading in links:
            page = json.loads((about.parent/link).read_text(encoding='utf8'))
            lines = [l for c in page['cells'] if c['cell_type'] == 'markdown'
                     for l in ''.join(c['source']).splitlines()]
            heads = [l.lstrip('# ').replace('`', '') for l in lines if l.startswith('#')]
            assert not heading or any(h.startswith(heading) for h in heads), (heading, heads)
        for file,test in files:
            assert (ROOT/file).is_file(), row
            source = (ROOT/file).read_text(encoding='utf8')
            assert not test or re.search(rf'^def {test}\(', source, flags=re.M), (file, test)
