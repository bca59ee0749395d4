"""Made the files beside it, with version 0.1.0 of laso: `python write.py FOLDER`.

It is kept to say what the files are; later versions read them (tests/test_old_files.py) and need no longer run it.
The weights of the tagger's backbone are -1, 0 or 1 times a number, so that the file is small when compressed."""
import gzip, json, sys
from importlib.metadata import version
from pathlib import Path
import numpy as np, torch
from safetensors.torch import save_file
from laso.adapt import adaptive_learner, fit_adaptive
from laso.backbones import create_backbone
from laso.core import OPS
from laso.features import FeatureTable
from laso.fewshot import Views, mixup_plan, support_sets
from laso.learner import laso_learner
from laso.operators import save_ops, set_ops
from laso.report import compare_runs
from laso.tagger import FewShotTagger

assert version('laso') == '0.1.0'
TAGS = [['red'], ['green'], ['red', 'green'], [], ['green', 'blue'], ['red'], ['blue'], ['red', 'blue']]

def toy_table(n=400, d=12, n_lbl=13):
    "Features that are sums of what their labels look like, and noise."
    rng = np.random.default_rng(0)
    y = rng.random((n, n_lbl)) < .2
    x = np.abs(y @ rng.random((n_lbl, d)) + .3*rng.random((n, d))).astype(np.float32)
    names = [f'class {i}' for i in range(n_lbl)]
    return FeatureTable(x, torch.from_numpy(y), names, torch.arange(n)%4 == 0, torch.arange(n_lbl) > 9,
                        meta=dict(data='toy', backbone='none', nonneg=True))

def trained(learn, fit):
    with learn.no_bar(), learn.no_logging(): return fit(learn)

def operators(table):
    "Operators of every kind by name, after an epoch where they learn."
    d,few = table.width,dict(n_pairs=512, bs=64, device='cpu')
    torch.manual_seed(0)
    res = dict(analytic=set_ops('analytic', d), blend=set_ops('blend', d))
    res |= {'blend-as-it-is': set_ops('blend', d, matched=False)}
    for m in (o for k in res for o in res[k].modules() if hasattr(o, 'see')): m.see(table.x[table.train_ids])
    adaptive = dict(logic=dict(), adaptive=dict(logic=False),
                    small=dict(h=4, n_dirs=5, knots=3, keep=.8))   # a logic with options
    for k,options in adaptive.items():
        res[k] = trained(adaptive_learner(table, **few, **options), lambda l: fit_adaptive(l, 1))
    others = dict(mixture=dict(h=8), signed=dict(kind='mixture', h=8, nonneg=False), paper=dict(h=8, p=.1),
                  residual=dict(), gated=dict(kind='residual', n_blocks=2, gated=True))
    for k,options in others.items():
        ops = set_ops(options.pop('kind', k), d, **options)
        res[k] = trained(laso_learner(table, ops, **few), lambda l: l.fit_ops(1, .01))
    return {k: o.eval() for k,o in res.items()}

def write_operators(folder, table):
    fx,fy = torch.rand(2, 6, table.width, generator=torch.Generator().manual_seed(0))
    want = dict(fx=fx, fy=fy)
    for k,ops in operators(table).items():
        save_ops(ops, folder/'operators'/k, features=table.fingerprint())
        with torch.no_grad(): want |= {f'{k}.{op}': ops(op, fx, fy) for op in OPS}
    save_file(want, folder/'operators'/'outputs.safetensors')

def write_views(folder, table):
    sets,g = support_sets(table, n_eps=2, n_shots=(1, 2), seed=3),torch.Generator().manual_seed(0)
    rows = torch.cat([s.rows for s in sets]).unique()
    pairs,lam = map(torch.cat, zip(*[mixup_plan(s, 4) for s in sets]))
    jittered,mixed = (torch.rand(*s, table.width, generator=g) for s in ((len(rows), 3), (len(pairs),)))
    Views.of(sets, rows, jittered, pairs, lam, mixed).save(folder/'views.safetensors')
    about = [dict(shot=s.shot, episode=s.episode, seed=s.seed, rows=s.rows.tolist()) for s in sets]
    (folder/'sets.json').write_text(json.dumps(about)+'\n')

def images(n, seed): return list(np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))

def write_tagger(folder):
    backbone = create_backbone('test_efficientnet', size=32, weights='random', device='cpu')
    rng = np.random.default_rng(0)
    for p in backbone.body.parameters():
        if p.dim() > 1: p.data = torch.from_numpy(rng.integers(-1, 2, p.shape)).float()*2/p[0].numel()**.5
    x = images(8, 0)
    for i,tags in enumerate(TAGS):   # something to learn: a tag brightens its colour
        for t in tags: x[i][...,['red', 'green', 'blue'].index(t)] |= 128
    tagger = FewShotTagger.teach(x, TAGS, backbone=backbone, ops=set_ops('blend', backbone.width), show=False)
    tagger.export(folder/'plain.tagger')
    (folder/'my.tagger.gz').write_bytes(gzip.compress((folder/'plain.tagger').read_bytes(), 9, mtime=0))
    (folder/'plain.tagger').unlink()
    want = dict(tags=tagger.tags, report=tagger.report, probabilities=tagger.predict_proba(images(4, 1), show=False).tolist())
    (folder/'tagger.json').write_text(json.dumps(want)+'\n')

def write_comparison(folder):
    "What comparing the run with one of the same data said, whose scores are others."
    a = json.loads((folder/'run'/'results.json').read_text())
    b = json.loads((folder/'run'/'results.json').read_text())
    for part in 'operators', 'fewshot':
        for i,o in enumerate(b[part]): o['map'] += .001*(i % 7)
    res = {title: tab.reset_index().to_dict('list') for title,tab in compare_runs(a, b).items()}
    (folder/'compared.json').write_text(json.dumps(res, ensure_ascii=False, default=float)+'\n')

if __name__ == '__main__':
    folder,table = Path(sys.argv[1]),toy_table()
    table.save(folder/'features')
    write_operators(folder, table)
    write_views(folder, table)
    write_tagger(folder)
    write_comparison(folder)
