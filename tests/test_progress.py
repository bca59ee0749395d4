"What long commands say meanwhile: their stages at once, lines while they work, tables as soon as they are known."
import itertools, re, subprocess, sys, threading
import pytest
from forked import network
from laso import progress as p
from test_repo import ROOT

@pytest.fixture
def told(monkeypatch):
    "Words by the clock, on a machine without others."
    monkeypatch.setenv('LASO_PROGRESS', '1')
    monkeypatch.setattr(p.Others, '__call__', lambda self: 0.)

def stages(err): return [o.removesuffix(' …') for o in err.splitlines() if o.endswith(' …')]

def test_every_stage_is_told(world, laso, told, tmp_path):
    run,tagger = tmp_path/'run',tmp_path/'my.tagger'
    pairs = 'Evaluation on pairs of validation images'
    for args,want in [
        (('extract', '--data', world/'data', *network(world), '--frozen', '--episodes', 2, '--out', run),
         ['Features', 'Choice of the representation', 'Views and mixtures of the support images']),
        (('train', run, '--ops-epochs', 1), ['Operators']),
        (('evaluate', run, '--n-pairs', 20), [pairs]), (('retrieve', run, '--n-pairs', 20), [pairs]),
        (('fewshot', run, '--out', tmp_path/'few'), ['Few-shot benchmark']),
        (('teach', world/'taught', *network(world), '--out', tagger), ['Learning tags from 24 images']),
        (('tag', tagger, world/'data'/'images'/'000.png'), ['Tagging 1 image']),
        (('review', tagger, world/'data'/'images', '--out', tmp_path/'a.html'), ['Looking at 90 images']),
    ]:
        status,out,err = laso(*args)
        assert status == 0, (args, err)
        assert [o if 'Learning' not in o else want[0] for o in stages(err)] == want, (args, err)

def test_tables_before_the_few_shot_benchmark(world, laso, told, tmp_path, monkeypatch):
    "On one stream, in the order in which they are said; none is said twice."
    monkeypatch.setattr(sys, 'stderr', sys.stdout)
    status,out,_ = laso('bench', '--data', world/'data', *network(world), '--frozen', '--episodes', 2, '--ops-epochs', 1, '--n-pairs', 20,
                        '--out', tmp_path/'run')
    assert status == 0, out
    names = 'Operators …', 'Operators: mAP', 'Expressions: mAP', 'a first report', 'Views and mixtures', 'Few-shot benchmark …', 'Few-shot: mAP'
    assert [out.count(o) for o in names] == [1]*len(names)
    assert sorted(names, key=out.index) == list(names)

def test_lines_come_while_one_step_takes_long(monkeypatch, told):
    "A thread says them; the clock that it looks at runs ten times ten seconds ahead at each look."
    said,came = [],threading.Event()
    def write(text): said.append(text); came.set()
    ticks = itertools.count(1)
    monkeypatch.setattr(p, '_LINES', p.Lines(write, lambda: 1e9+100*next(ticks)))
    with p.progress('outer', 8), p.progress('inner', 3) as step:
        step()
        assert came.wait(60)
    assert said[0].startswith('outer: 0 of 8 / inner: 1 of 3, about ')
    assert not p._LINES.jobs

def test_nothing_is_said_where_it_is_not_wanted(told, capsys, monkeypatch):
    for env,show in (dict(LASO_PROGRESS='0'), None), ({}, False), (dict(RANK='1', WORLD_SIZE='2'), None):
        with monkeypatch.context() as m:
            for k,v in env.items(): m.setenv(k, v)
            with p.stage('Features', show=show): assert not p._LINES.jobs
    assert capsys.readouterr() == ('', '')

def test_who_else_is_busy(told, capsys, monkeypatch):
    monkeypatch.setattr(p.Others, '__call__', lambda self: 99.)
    with p.stage('Features'): pass
    first,busy,_ = capsys.readouterr().err.splitlines()
    assert first == 'Features …' and re.match(r'laso: other processes keep about 99 of ', busy)

def test_import_is_light():
    "`import laso` brings nothing but itself and Python's own."
    code = 'import sys; before = {*sys.modules}; import laso; print(*{m.split(".")[0] for m in {*sys.modules} - before} - sys.stdlib_module_names)'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert {o for o in out.split() if not o.startswith('_')} == {'laso'}
