"A wheel holds the package and nothing else, says what settings.ini says, and works without the repository."
import os, re, shutil, subprocess, sys, zipfile
from email import message_from_string
from pathlib import Path
import pytest
from laso.tag.backgrounds import WORDS
from test_repo import ROOT, settings

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "A wheel built from a copy of the repository, without the network."
    tmp = tmp_path_factory.mktemp('wheel')
    skip = shutil.ignore_patterns('.*', '_*', 'build', 'dist', 'runs', '*.egg-info')
    def ignore(folder, names):
        if Path(folder) == ROOT: return skip(folder, names)
        return [n for n in names if n == '__pycache__']
    shutil.copytree(ROOT, tmp/'repo', symlinks=True, ignore=ignore)
    cmd = 'pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir'.split()
    res = subprocess.run([sys.executable, '-m', *cmd, tmp, tmp/'repo'], capture_output=True, text=True,
                         stdin=subprocess.DEVNULL)
    assert res.returncode == 0, res.stdout + res.stderr
    return next(tmp.glob('*.whl'))

def read(wheel, suffix):
    with zipfile.ZipFile(wheel) as z:
        return z.read(next(n for n in z.namelist() if n.endswith(suffix))).decode()

def test_files(wheel):
    with zipfile.ZipFile(wheel) as z: names = z.namelist()
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT/'laso').rglob('*.py')}
    assert {n for n in names if '.dist-info/' not in n} == package | {'laso/laso_episodes.json', 'laso/py.typed', 'laso/tag/review.html'} | {f'laso/tag/backgrounds/{o}.jpg' for o in WORDS}
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
