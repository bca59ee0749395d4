"The oldest versions that settings.ini admits and the latest ones, each in an environment of its own, for every declared version of Python."
import os, shutil, subprocess, sys, tempfile
from pathlib import Path
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from test_repo import ROOT, normal, settings

PYTHONS = settings()['pythons'].split()
TESTS = 'metrics numbers samplers label_algebra expressions layouts bad_input_data official tagger logs processes cli'.split()
EXTRAS = 'coco', 'log', 'scale', 'study', 'text', 'widgets'
TOOLS = 'pytest pytest-xdist hypothesis torchmetrics setuptools'.split()   # that the tests need, besides laso

def bounds():
    "Name -> lowest version, of all requirements but those of development."
    reqs = [Requirement(r) for k in ('', *(f'{e}_' for e in EXTRAS)) for r in settings()[f'{k}requirements'].split()]
    return {normal(r.name): min((s.version for s in r.specifier if s.operator == '>='), default=None) for r in reqs}

def test_every_requirement_has_a_lower_bound():
    missing = [n for n,v in bounds().items() if not v]
    assert not missing, f'find out the oldest version that works: {missing}'

def test_pip_check():
    res = subprocess.run([sys.executable, '-m', 'pip', 'check'], capture_output=True, text=True)
    assert res.returncode == 0, res.stdout

def test_this_python_is_declared(): assert f'{sys.version_info.major}.{sys.version_info.minor}' in PYTHONS

# The long ones

@pytest.fixture(scope='module')
def place():
    "A folder with a copy of the repository, and a cache that the environments share; both are removed."
    with tempfile.TemporaryDirectory() as t:
        skip = shutil.ignore_patterns('.git', '.*cache', '.hypothesis', 'build', 'runs', '*.egg-info', '__pycache__')
        shutil.copytree(ROOT, Path(t)/'repo', symlinks=True, ignore=skip)
        yield Path(t)

def uv(place, *args):
    env = dict(os.environ, UV_CACHE_DIR=str(place/'cache'), UV_PYTHON_DOWNLOADS='never')
    res = subprocess.run(['uv', *map(str, args)], env=env, cwd=place, capture_output=True, text=True)
    assert res.returncode == 0, res.stdout+res.stderr
    return res.stdout

def environment(place, python, pins):
    "A fresh environment with laso, these versions of packages, and the latest of all others."
    venv = place/f'{python}-{len(pins)}'
    if subprocess.run(['uv', 'python', 'find', '--no-python-downloads', python], capture_output=True).returncode:
        pytest.skip(f'needs Python {python}')
    uv(place, 'venv', '--python', python, venv)
    laso = f"laso[{','.join(EXTRAS)}] @ {(place/'repo').as_uri()}"
    uv(place, 'pip', 'install', '--python', venv, laso, *TOOLS, *(f'{k}=={v}' for k,v in pins.items()))
    uv(place, 'pip', 'check', '--python', venv)
    return venv

def run_tests(place, venv):
    "The tests that need no notebook, with the package as it is installed, not the repository's."
    env = {k: v for k,v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')} | dict(LASO_CACHE=str(place/f'{venv.name}-cache'))
    files = [f'test_{o}.py' for o in TESTS]
    res = subprocess.run([venv/'bin/pytest', *files], cwd=place/'repo/tests', env=env, capture_output=True, text=True)
    shutil.rmtree(venv)
    assert res.returncode == 0, res.stdout[-4000:]

@pytest.mark.slow
def test_oldest_versions(place):
    pins = bounds()
    venv = environment(place, PYTHONS[0], pins)
    code = 'from importlib.metadata import version; import sys; print(*map(version, sys.argv[1:]))'
    got = subprocess.run([venv/'bin/python', '-c', code, *pins], capture_output=True, text=True, check=True).stdout.split()
    assert all(SpecifierSet(f'=={want}').contains(v) for want,v in zip(pins.values(), got)), got
    run_tests(place, venv)

@pytest.mark.slow
@pytest.mark.parametrize('python', PYTHONS)
def test_latest_versions(place, python): run_tests(place, environment(place, python, {}))
