"`laso paper`: files of a short run, the same on classes that play novel ones, and mistakes told at once."
import json
import pytest
from laso.data.scenes import make_scenes

@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('LASO_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield

def test_a_short_run(laso, tmp_path):
    make_scenes(tmp_path/'mini', n_train=240, n_valid=100, size=32, seed=0)
    where = ['paper', '--data', tmp_path/'mini', '--backbone', 'test_efficientnet', '--weights', 'random', '--size', 32, '--frozen',
             '--quick', '--sets', 1, '--ops', 'blend', '--shots', 1, '--out', tmp_path/'out']
    status,out,err = laso(*where)
    assert status == 0 and 'written to' in out and 'Few-shot: mAP' in out, err
    res = json.loads((tmp_path/'out/paper.json').read_text())
    methods = [r['method'] for r in res['fewshot']]
    assert methods == ['none', 'none, large batches', 'jitter', 'mixup', 'analytic-intersection', 'analytic-union',
                       'blend-intersection', 'blend-union', 'linear head, none']
    assert res['command'].startswith('laso paper --data') and res['config']['shots'] == [1]
    assert {r['sources'] for r in res['retrieval']} == {'count', 'do not count'}
    text = (tmp_path/'out/paper-tables.md').read_text()
    assert '| seen | untouched | images of pairs |' in text and 'unverified' in text and '45.3' not in text
    assert '<table' in (tmp_path/'out/report.html').read_text()
    (tmp_path/'out/paper-fewshot.csv').write_text('mine')
    status,_,err = laso(*where)
    assert status == 2 and 'found paper-fewshot.csv' in err and (tmp_path/'out/paper-fewshot.csv').read_text() == 'mine'
    status,out,err = laso(*where[:-1], tmp_path/'other', '--pseudo', 3)
    assert status == 0, err
    pseudo = json.loads((tmp_path/'other/paper.json').read_text())['data']
    assert {*pseudo['base'], *pseudo['novel']} == {*res['data']['base']} and pseudo['n_train'] + pseudo['n_valid'] == res['data']['n_train']

@pytest.mark.parametrize('args,parts', [('--ops best', ['paper', "'best'"]), ('--schedule fast', ['one-cycle', "'fast'"]),
    ('--data coco:nowhere', ['nowhere']), ('--sets 0', ['sets of at least 1']), ('--reconstruct both', ['code, paper'])])
def test_mistakes(laso, args, parts):
    status,_,err = laso('paper', *args.split())
    assert status == 2 and err.startswith('laso: expected ') and err.count('\n') == 1, err
    for o in parts: assert o in err, err
