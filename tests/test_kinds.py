"A kind of operators that is entered from outside goes through everything, the command line included."
import json
import pytest
import torch
from torch import nn
from forked import network
from laso import cli
from laso.features.table import load_features, toy_table
from laso.fewshot.methods import fewshot
from laso.fewshot.support import support_sets
from laso.ops.evaluation import evaluate
from laso.ops.kinds import KINDS, Kind, SetOps, set_ops
from laso.ops.networks import Operator
from laso.train import recipes
from laso.train.recipes import ops_learner, train_ops
from typer.testing import CliRunner

class Tilted(Operator):
    "A learned mixture of x and y around the mean of real features."
    def __init__(self, op, d, *, share=.5):
        super().__init__()
        self.mix = nn.Parameter(torch.full((2, d), share))
        self.register_buffer('mean', torch.zeros(d))

    def facts(self, x, classifier=None, *, seed=0):
        return dict(mean=x.float().mean(0), seen=(classifier.out_features, seed))

    def adapt(self, mean, seen): self.mean.copy_(mean); self.seen = seen
    def forward(self, fx, fy): return self.mean + self.mix[0]*(fx-self.mean) + self.mix[1]*(fy-self.mean)

@pytest.fixture
def kind():
    KINDS['tilted'] = Kind(Tilted, 'crossfit', dict(bs=64))
    yield 'tilted'
    del KINDS['tilted']

def test_in_python(kind, tmp_path):
    table = toy_table(600)
    learn = ops_learner(table, kind, n_pairs=512, share=.25, seed=3)
    assert learn.dls.train.bs == 64
    with learn.no_bar(), learn.no_logging(): ops = learn.fit_ops(1)
    assert ops.union.seen == (len(table.base_ids), 3)
    assert not torch.equal(ops.union.mix, torch.full((2, 32), .25))   # it has learned
    ops.save(tmp_path)
    again = SetOps.load(tmp_path, 32)
    x,y = table.features(torch.arange(5)),table.features(torch.arange(5, 10))
    assert again.config == dict(kind=kind, d=32, share=.25)
    assert torch.allclose(again('subtraction', x, y), ops('subtraction', x, y))
    rows = evaluate(table, dict(mine=again), n_pairs=50)['operators']
    assert {(r['op'], r['classes']) for r in rows} == {(o, c) for o in ('union', 'intersection', 'subtraction')
                                                       for c in ('seen', 'unseen')}
    sets = support_sets(table, n_shots=(1,), n_eps=2)
    few = fewshot(table, again, sets=sets)
    plain = fewshot(table, set_ops('analytic', 32), sets=sets)
    score = lambda rows, m: [r['map'] for r in rows if r['method'] == m]
    assert score(few, 'none') == score(plain, 'none') and score(few, 'laso-union') != score(plain, 'laso-union')

def test_on_the_command_line(kind, world, tmp_path, monkeypatch):
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr(recipes, 'FEWEST', 1024)
    some = ['--data', world/'data', *network(world), '--frozen', '--episodes', 2]
    run = tmp_path/'run'
    def call(*args):
        res = CliRunner().invoke(cli.app, [*map(str, args)])
        assert res.exit_code == 0, res.output + repr(res.exception)
        return res.output
    call('extract', *some, '--out', run)
    call('train', run, '--ops', kind, '--ops-epochs', 1)
    ops = SetOps.load(run)
    assert type(ops.union) is Tilted and ops.config['kind'] == kind
    assert torch.allclose(ops.union.mean, load_features(run/'features').x.mean(0), atol=.2)
    for stage in ('evaluate', 'retrieve'): assert 'learned' in call(stage, run, '--n-pairs', 50)
    assert 'laso-union' in call('fewshot', run)
    call('bench', *some, '--ops', kind, '--ops-epochs', 1, '--n-pairs', 50, '--out', tmp_path/'all')
    config = json.loads((tmp_path/'all/results.json').read_text())['config']
    assert (config['ops'], config['bs']) == (kind, 64)
    res = CliRunner().invoke(cli.app, ['bench', *map(str, some), '--ops', 'nothing'])
    assert "found 'nothing'" in str(res.exception)
    res = CliRunner().invoke(cli.app, ['train', str(run), '--ops', kind, '--bf16'])
    assert 'found bf16' in str(res.exception)
