"""A long run on a large table: is the memory flat, and the speed?

    python tests/load.py --minutes 60 --out load.csv      the whole of it: 1,000,000 x 2,048 numbers of 16 bits, 4.1 GB
    python tests/load.py --check load.csv                 what an earlier run found, whole or not

It trains operators, runs the few-shot benchmark and searches, in turns, on a synthetic table that stays on disk. Every minute adds a
line to the file: the anonymous memory of the process (mapped files do not count), what remains of it when all that is free is given
back to the system, and the rate of each job. An interrupted run (Ctrl-C, SIGTERM) is judged by the lines that it has. Exit status 1 if
memory or speed is not flat."""
import argparse, csv, ctypes, gc, signal, sys, tempfile, time
from pathlib import Path
import numpy as np, psutil, torch
from laso.features.table import FeatureTable
from laso.fewshot.methods import fewshot
from laso.fewshot.support import support_sets
from laso.train.recipes import ops_learner
from laso.lab.speed_size import large_table
from laso.evaluate.retrieval import nearest

RATES,MEMORY = ('pairs_per_s', 'scores_per_s', 'queries_per_s'), dict(anon_mb=.05, held_mb=.01)   # with the growth that is allowed
COLUMNS = 'minute', 'rows', 'width', *MEMORY, *RATES
METHODS = ['none', 'analytic-union', 'laso-intersection', 'laso-union']

def anon_mb():
    return int(next(o for o in open('/proc/self/status') if o.startswith('RssAnon')).split()[1])/1000

def memory():
    res = anon_mb()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return dict(anon_mb=res, held_mb=anon_mb())

def make_table(folder, rows, width):
    "One row in fifty for training, the rest to be scored; all of them are searched."
    need,room = 2*rows*width, min(psutil.virtual_memory().available, psutil.disk_usage(folder).free)
    if 2*need > room: sys.exit(f'expected room for a table of {need/1e9:.1f} GB twice, found {room/1e9:.1f} GB; use fewer --rows')
    t = large_table(folder, rows, width)
    return FeatureTable(t.x, t.labels, t.vocab, torch.arange(rows)%50 > 0, t.novel)

def jobs(table):
    "Name of a rate -> function that does some work in round `i` and returns how much."
    learn = ops_learner(table, 'mixture', n_pairs=2048)
    def train(i):
        with learn.no_bar(), learn.no_logging(): learn.fit_ops(1)
        return 2048
    def score(i):
        sets = support_sets(table, n_shots=(1,), n_eps=1, seed=i)
        return len(fewshot(table, learn.model.ops.eval(), sets=sets, methods=METHODS))*len(table.valid_ids)
    def search(i):
        q = torch.from_numpy(np.random.default_rng(i).integers(len(table), size=64))
        assert torch.equal(nearest(table.features(q), table.x, 5)[1][:,0], q)   # each row finds itself
        return len(q)
    return dict(zip(RATES, (train, score, search)))

def minutes(todo, seconds, every):
    "One line after another, for all rounds of `every` seconds."
    start,i = time.monotonic(),0
    while time.monotonic()-start < seconds:
        began,done,busy = time.monotonic(),dict.fromkeys(todo, 0),dict.fromkeys(todo, 0.)
        while time.monotonic()-began < every:
            for k,job in todo.items():
                t = time.monotonic()
                done[k] += job(i)
                busy[k] += time.monotonic()-t
            i += 1
        yield dict(minute=(time.monotonic()-start)/60) | memory() | {k: done[k]/busy[k] for k in todo}

def verdict(lines, slower=.05, mb=8):
    """Complaints about lines, of which the first third is left out: there caches of bounded size fill, such as that of oneDNN. The median of
    the last third may have more memory than that of the second by the parts in `MEMORY` and `mb` megabytes, and each rate may be `slower` by
    this part. That is half of what the whole run may change by."""
    lines = lines[1:]
    if len(lines) < 6: return [f'expected 7 lines or more, found {len(lines)+1}; run longer']
    third,bad = len(lines)//3,[]
    for k in (*MEMORY, *RATES):
        a,b = (float(np.median([l[k] for l in part])) for part in (lines[-2*third:-third], lines[-third:]))
        print(f'{k}: {a:.6g} in the second third, {b:.6g} in the last ({b/a-1:+.1%})')
        if k in MEMORY and b > a*(1+MEMORY[k])+mb: bad.append(f'{k} grows from {a:.0f} to {b:.0f}')
        if k in RATES and b < a*(1-slower): bad.append(f'{k} falls from {a:.4g} to {b:.4g}')
    return bad

def read(file):
    with open(file, newline='') as f: return [{k: float(v) for k,v in l.items()} for l in csv.DictReader(f)]

def run(out, rows, width, seconds, every, folder=None):
    "Write a line a minute to the file `out`, until the time is over or the run is interrupted."
    with tempfile.TemporaryDirectory(dir=folder) as t, open(out, 'w', newline='', buffering=1) as f:
        w = csv.DictWriter(f, COLUMNS)
        w.writeheader()
        try:
            start = time.monotonic()
            table = make_table(t, rows, width)
            todo = jobs(table)
            print(f'{rows:,} x {width:,} numbers, {2*rows*width/1e9:.2f} GB; ready after {time.monotonic()-start:.0f} s', flush=True)
            for line in minutes(todo, seconds, every):
                w.writerow(line | dict(rows=rows, width=width))
                print(*(f'{k} {v:.5g}' for k,v in line.items()), sep='  ', flush=True)
        except KeyboardInterrupt: print('interrupted')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=60)
    p.add_argument('--rows', type=int, default=1_000_000)
    p.add_argument('--width', type=int, default=2048)
    p.add_argument('--every', type=float, default=60, help='seconds of a line')
    p.add_argument('--slower', type=float, default=.05, help='part of the speed that may be lost')
    p.add_argument('--folder', type=Path, help='for the table; by default that for temporary files')
    p.add_argument('--out', type=Path, default='load.csv')
    p.add_argument('--check', type=Path, metavar='FILE', help='judge this file, run nothing')
    a = p.parse_args()
    for s in (signal.SIGTERM, signal.SIGINT): signal.signal(s, signal.default_int_handler)
    if not a.check: run(a.out, a.rows, a.width, a.minutes*60, a.every, a.folder)
    bad = verdict(read(a.check or a.out), slower=a.slower)
    print('; '.join(bad) or 'flat')
    sys.exit(bool(bad))

if __name__ == '__main__': main()
