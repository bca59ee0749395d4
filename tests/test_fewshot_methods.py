"A few-shot method that is entered from outside stands in the table that `laso fewshot` prints."
import dataclasses
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner
from laso import cli
from laso.bench.results import fewshot_summary
from laso.core import InputError
from laso.data.scenes import make_scenes
from laso.evaluate.metrics import mean_ap
from laso.evaluate.plots import COLOURS, fewshot_plot
from laso.features.table import toy_table
from laso.fewshot.methods import METHODS, Augment, Method, fewshot, method_groups, usual_methods
from laso.fewshot.support import example_weights, support_sets, support_tasks
from laso.fewshot.views import toy_views
from laso.ops.kinds import set_ops

@pytest.fixture
def mine():
    def nearest_mean(task):
        means = task.y.T @ task.x
        return F.normalize(task.query, dim=-1) @ F.normalize(means, dim=-1).T
    METHODS['mine'] = Method(nearest_mean)
    yield 'mine'
    del METHODS['mine']

@pytest.fixture(scope='module')
def world():
    table = toy_table()
    sets = support_sets(table, n_eps=3)
    return table,sets

def test_stands_beside_the_others(mine, world):
    table,sets = world
    rows = fewshot(table, sets=sets)
    summary = fewshot_summary(rows)
    rows = fewshot(table, sets=sets, n_boot=0)
    assert mine in summary.index and summary.loc[mine, '1-shot − none'].startswith(('+', '-'))
    usual = [k for k in usual_methods() if k != mine]
    plain = fewshot(table, sets=sets, methods=usual, n_boot=0)
    assert [r for r in rows if r['method'] != mine] == plain   # it changes no other score

def test_in_the_table_of_the_command(mine, tmp_path, monkeypatch):
    monkeypatch.setenv('LASO_CACHE', str(tmp_path/'cache'))
    make_scenes(tmp_path/'mini', n_train=240, n_valid=120, size=64, seed=0)
    def call(*args):
        res = CliRunner().invoke(cli.app, [*map(str, args)])
        assert res.exit_code == 0, res.output + repr(res.exception)
        return res.output
    run = tmp_path/'run'
    call('extract', '--data', tmp_path/'mini', '--backbone', 'test_efficientnet',
         '--weights', 'random', '--size', 64, '--frozen', '--episodes', 2, '--out', run)
    call('train', run, '--ops', 'analytic')
    lines = call('fewshot', run, '--method', 'ridge').splitlines()
    for name in ('none', mine, 'ridge'):
        assert any(name in l.split() and ' to ' in l for l in lines), name

def test_makers_are_methods(world):
    "One's own maker of examples is solved with all others, and alone it says the same."
    table,sets = world
    def twice(task): return task.x, task.y
    rows = fewshot(table, sets=sets, methods=dict(none=METHODS['none'], twice=Augment(twice)))
    task,y = support_tasks(table, sets)[-1],table.novel_labels[table.valid_ids]
    alone = mean_ap(Augment(twice)(task), y).item()
    assert rows[-1]['map'] == pytest.approx(alone, abs=2e-3)
    assert [r['method'] for r in rows] == ['none', 'twice']*len(sets)

LACKS = [('laso-union', 'learned operators'), ('union-softmax', 'learned operators'),
         ('mixup', 'views')]

@pytest.mark.parametrize('name,lack', LACKS)
def test_what_is_lacking_is_said(world, name, lack):
    with pytest.raises(InputError, match=f'expected {lack}.* for the method {name}'):
        fewshot(world[0], sets=world[1], methods=['none', name])

def test_unknown_names_are_refused(world):
    with pytest.raises(InputError, match='found forest;'):
        fewshot(world[0], sets=world[1], methods=['forest'])

def test_every_entry_runs(world):
    "All methods of the registry, and all settings that can be chosen, on one support set."
    table,sets = world
    ops,views = set_ops('blend', table.width).eval(),toy_views(table, sets)
    names = [k for k,m in METHODS.items() if not m.concepts]
    rows = fewshot(table, ops, views, sets=sets, methods=names)
    assert {r['method'] for r in rows} == {*names} and all(0 <= r['map'] <= 1 for r in rows)
    task = support_tasks(table, sets, ops=ops)[0]
    for m in METHODS.values():
        for setting in [] if m.concepts else m.settings:
            scores = setting(task)
            assert scores.shape == (len(task.query), task.y.shape[1]), setting
            assert not scores.isnan().any(), setting

def test_groups_have_colours(mine, world):
    "What a method needs is said by its entry, not by its name."
    METHODS[mine] = dataclasses.replace(METHODS[mine], group='my own')
    rows = fewshot(world[0], sets=world[1], methods=['none', 'analytic-union', mine])
    bars = fewshot_plot(dict(fewshot=rows), method_groups()).axes[0].containers
    assert [b.lines[0].get_color() for b in bars] == [COLOURS['orange'], COLOURS['green']]

@pytest.mark.parametrize('n,m,each', [(4, 1, .5), (4, 4, .5), (4, 8, .25), (1, 64, .5/64)])
def test_weight_of_examples(n, m, each):
    w = example_weights(n, m, .5)
    assert torch.equal(w[:n], torch.ones(n)) and w[n:].tolist() == pytest.approx([each]*m)
    assert w[n:].sum() <= .5*n + 1e-6
