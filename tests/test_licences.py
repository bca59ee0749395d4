"""Licences: the page lists every requirement with what the package says of itself, and Twemoji is named where its
graphics are used."""
import json, re
import pytest
from test_repo import NBS, ROOT, normal, settings

KINDS = [k for k in settings() if k.endswith('requirements')]
TWEMOJI = ('Twemoji', 'Copyright 2019 Twitter, Inc and other contributors', 'CC-BY 4.0',
           'https://creativecommons.org/licenses/by/4.0/')

@pytest.fixture(scope='module')
def page(): return json.loads((NBS/'about/licences.ipynb').read_text(encoding='utf8'))['cells']

def stored(page):
    "The first table of the page: name -> licences and uses."
    out = next(o for c in page for o in c.get('outputs', []))
    lines = ''.join(out['data']['text/markdown']).splitlines()[2:]
    rows = [l.strip('| ').split(' | ') for l in lines]
    return {(normal(name), use): licence for name,use,licence,_ in rows}

def families(licence): return set(re.findall('Apache|MIT|BSD|Python Software|PSF|MPL', licence))

@pytest.mark.parametrize('kind', KINDS)
def test_every_requirement_is_listed(page, kind):
    use = 'always' if kind == 'requirements' else f"`laso[{kind.removesuffix('_requirements')}]`"
    listed = {n for n,u in stored(page) if u == use}
    hint = 'run nbs/about/licences.ipynb where all of them are installed'
    assert listed == {normal(r) for r in settings()[kind].split()}, hint

def test_licences_are_those_that_packages_declare(page):
    names = {}
    for c in page:
        if c['cell_type'] == 'code': exec(''.join(c['source']), names)
    listed,now = stored(page),names['table']
    assert len(now) > 20
    for name,use,licence,_ in now:
        if (normal(name), use) in listed:
            assert families(licence) & families(listed[normal(name), use]), (name, licence)
    assert all(families(l) or l == 'FreeBSD' for l in listed.values())

@pytest.mark.parametrize('file', ['README.md', 'nbs/about/licences.ipynb', 'nbs/data/13_scenes.ipynb',
                                  'laso/data/scenes.py'])
def test_twemoji_is_named(file):
    text = ' '.join((ROOT/file).read_text(encoding='utf8').split())
    for part in TWEMOJI: assert part in text, part
