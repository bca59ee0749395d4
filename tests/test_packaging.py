"A wheel holds the package and nothing else, says what settings.ini says, and works without the repository."
import json, os, re, shutil, subprocess, sys, tarfile, zipfile
from email import message_from_string
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
import pytest
from laso.tag.backgrounds import WORDS
from test_repo import ROOT, settings

@pytest.fixture(scope='module')
def sdist(tmp_path_factory):
    "A source distribution of a copy of the repository."
    tmp = tmp_path_factory.mktemp('sdist')
    skip = shutil.ignore_patterns('.*', '_*', 'build', 'dist', 'runs', '*.egg-info')
    def ignore(folder, names):
        if Path(folder) == ROOT: return skip(folder, names)
        return [n for n in names if n == '__pycache__']
    shutil.copytree(ROOT, tmp/'repo', symlinks=True, ignore=ignore)
    code = 'import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])'
    res = subprocess.run([sys.executable, '-c', code, tmp], cwd=tmp/'repo', capture_output=True, text=True)
    assert res.returncode == 0, res.stdout + res.stderr
    return next(tmp.glob('*.tar.gz'))

@pytest.fixture(scope='module')
def wheel(sdist, tmp_path_factory):
    "A wheel built from the source distribution, without the network."
    tmp = tmp_path_factory.mktemp('wheel')
    cmd = 'pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir'.split()
    res = subprocess.run([sys.executable, '-m', *cmd, tmp, sdist], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert res.returncode == 0, res.stdout + res.stderr
    return next(tmp.glob('*.whl'))

def test_sdist(sdist):
    "What a build needs, and nothing of the tests, the notebooks or the workplace."
    with tarfile.open(sdist) as t: names = {m.name.partition('/')[2] for m in t.getmembers() if m.isfile()}
    outside = {n for n in names if not n.startswith('laso') or '.egg-info/' in n}
    assert {n for n in outside if '.egg-info/' not in n} == set('CHANGELOG.md CITATION.cff LICENSE MANIFEST.in PKG-INFO README.md pyproject.toml '
                                                                'settings.ini setup.cfg setup.py'.split())

def read(wheel, suffix):
    with zipfile.ZipFile(wheel) as z:
        return z.read(next(n for n in z.namelist() if n.endswith(suffix))).decode()

def test_files(wheel):
    with zipfile.ZipFile(wheel) as z: names = z.namelist()
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT/'laso').rglob('*.py')}
    assert {n for n in names if '.dist-info/' not in n} == package | {'laso/laso_episodes.json', 'laso/py.typed', 'laso/tag/review.html'} | {f'laso/tag/background-images/{o}.jpg' for o in WORDS}
    assert {'laso/_modidx.py', 'laso/core.py', 'laso/tag/__init__.py', 'laso/tag/tagger.py'} <= {*names}
    assert any(n.endswith('licenses/LICENSE') for n in names)

def same(reqs): return sorted(re.sub(r'''[\s"'()]''', '', r).lower() for r in reqs)

def test_metadata(wheel):
    cfg,meta = settings(),message_from_string(read(wheel, '.dist-info/METADATA'))
    want = [cfg[k] for k in ('lib_name', 'version', 'description')]
    assert [meta[k] for k in ('Name', 'Version', 'Summary')] == want
    assert meta['Requires-Python'] == '>=3.10'
    assert meta.get_all('Classifier') == [f'Programming Language :: Python :: {v}' for v in cfg['pythons'].split()]
    reqs = meta.get_all('Requires-Dist')
    dev = [re.sub(r'(;| and )\s*extra == .dev.', '', r) for r in reqs if re.search('extra == .dev.', r)]
    assert same(r for r in reqs if 'extra ==' not in r) == same(cfg['requirements'].split())
    assert same(dev) == same(cfg['dev_requirements'].split())
    points = read(wheel, '.dist-info/entry_points.txt')
    assert 'laso = laso.cli:main' in points and 'laso = laso._modidx:d' in points

def test_installed_wheel_works(wheel, tmp_path):
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps']
    subprocess.run([*pip, '--target', tmp_path/'lib', wheel], check=True, stdin=subprocess.DEVNULL)
    code = 'import laso, laso.data.labels; print(laso.__file__, laso.__version__, laso.core.OPS)'
    env = {**os.environ, 'PYTHONPATH': str(tmp_path/'lib')}
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True,
                         text=True, check=True).stdout
    assert out.startswith(str(tmp_path/'lib')) and f" {settings()['version']} " in out

def test_citation():
    text = (ROOT/'CITATION.cff').read_text(encoding='utf8')
    assert f"\nversion: {settings()['version']}\n" in text and f"\nlicense: {settings()['license']}\n" in text

def test_workflows():
    "They can be read, a tag publishes, and only then is a token given."
    import yaml
    flows = {p.stem: yaml.safe_load(p.read_text(encoding='utf8')) for p in (ROOT/'.github'/'workflows').glob('*.yml')}
    assert flows.keys() == {'test', 'release', 'docs'}
    release = flows['release']
    assert release[True] == dict(push=dict(tags=['v*']))   # YAML reads `on` as true
    assert [k for k,job in release['jobs'].items() if 'id-token' in job.get('permissions', {})] == ['publish']
    assert release['jobs']['publish']['needs'] == 'try' and release['jobs']['try']['needs'] == 'build'

@pytest.mark.parametrize('url,link', [
    ('', None), ('https://example.com/a/b', None),
    ('https://github.com/a/b.git', 'https://colab.research.google.com/github/a/b/blob/main/nbs/tutorials/x.ipynb')])
def test_links_to_colab(url, link, tmp_path, monkeypatch):
    "Below the title of tutorials, once the address of the repository is there."
    spec = spec_from_file_location('docs', ROOT/'.ci/docs.py')
    spec.loader.exec_module(docs := module_from_spec(spec))
    monkeypatch.setattr(docs, 'get_config', lambda _: SimpleNamespace(git_url=url, branch='main'))
    page = tmp_path/'x.ipynb'
    for name in 'tutorials/x.ipynb', 'data/x.ipynb':
        page.write_text(json.dumps(dict(cells=[dict(source='# Title'), dict(source='text')])))
        docs.add_colab(page, name)
        cells = [c['source'] for c in json.loads(page.read_text())['cells']]
        wanted = link and name.startswith('tutorials')
        assert len(cells) == 2 + bool(wanted) and (not wanted or f'({link})' in cells[1] and f'git+{url}' in cells[1])

@pytest.mark.slow
def test_wheel_in_an_empty_environment(wheel, tmp_path, request):
    "What settings.ini requires is enough for the benchmark, away from the repository, and extras say their name."
    env = {k: v for k,v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')} | dict(LASO_CACHE=str(tmp_path/'cache'))
    def run(*args, status=0):
        res = subprocess.run(list(map(str, args)), cwd=tmp_path, env=env, capture_output=True, text=True)
        assert res.returncode == status, res.stdout + res.stderr
        return res.stdout + res.stderr
    run('uv', 'venv', '--python', sys.executable, 'venv')
    request.addfinalizer(lambda: shutil.rmtree(tmp_path/'venv'))   # 6 GB
    run('uv', 'pip', 'install', '--python', 'venv', wheel)
    laso = tmp_path/'venv/bin/laso'
    assert f"laso {settings()['version']}" in run(laso, '--version')
    run(laso, 'bench', '--quick', '--out', 'run')
    assert json.loads((tmp_path/'run/results.json').read_text())['config']['quick'] is True
    code = 'import laso.explore'
    assert "pip install 'laso[widgets]'" in run(tmp_path/'venv/bin/python', '-c', code, status=1)
