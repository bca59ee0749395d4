#!/usr/bin/env python3
"""Run all that takes long: tests marked `slow`, and the pages that have cells with `#| slow`.

Each form is a process of its own and one row of a table: passed, failed or skipped, and its seconds. Two run side
by side, those that took longest first. What has passed is not run again, so a run that was stopped goes on; `--anew`
forgets it all. `--list` shows the table."""
import argparse, csv, json, math, re, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT/'.pytest_cache/slow.csv'
PYTEST = [sys.executable, '-m', 'pytest', '-n', '0', '-q', '-p', 'no:warnings']
PASSED,NONE = 0,5   # as pytest ends; 5 where nothing was collected

def tests():
    "The slow tests, `file::function` each with all of its cases."
    said = subprocess.run([*PYTEST, '--collect-only', '-m', 'slow'], cwd=ROOT, capture_output=True, text=True)
    names = [l.partition('[')[0] for l in said.stdout.splitlines() if l.startswith('tests/') and '::' in l]
    if not names: raise SystemExit(said.stdout+said.stderr)
    return {o: ['-m', 'slow', o] for o in dict.fromkeys(names)}

def pages():
    "The notebooks with slow cells."
    for p in sorted((ROOT/'nbs').rglob('*.ipynb')):
        sources = (''.join(c['source']) for c in json.loads(p.read_text(encoding='utf8'))['cells'])
        if any(re.search(r'^#\| slow$', o, re.M) for o in sources):
            name = p.relative_to(ROOT/'nbs').as_posix()
            yield name,['--nb-flags', 'slow', f'tests/test_notebooks.py::test_notebook[{name}]']

def known():
    "What the table says, form -> row."
    if not TABLE.exists(): return {}
    with open(TABLE, newline='', encoding='utf8') as f: return {r['form']: r for r in csv.DictReader(f)}

def write(rows):
    TABLE.parent.mkdir(exist_ok=True)
    with open(TABLE, 'w', newline='', encoding='utf8') as f:
        w = csv.DictWriter(f, ['form', 'result', 'seconds', 'said'])
        w.writeheader()
        w.writerows(rows.values())

def run(form, args):
    "One form; its row."
    start = time.monotonic()
    p = subprocess.run([*PYTEST, *args], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    last = (p.stdout.strip().splitlines() or [''])[-1].strip('= ')
    skipped = p.returncode == NONE or ' passed' not in last and 'skipped' in last
    result = 'failed' if p.returncode not in (PASSED, NONE) else 'skipped' if skipped else 'passed'
    if result == 'failed': print(p.stdout[-5000:], p.stderr[-2000:], flush=True)
    return dict(form=form, result=result, seconds=round(time.monotonic()-start), said=last)

def longest_first(forms, rows):
    "Their names; what was never run comes before all others."
    return sorted(forms, key=lambda k: -int(rows[k]['seconds']) if k in rows else -math.inf)

def show(row): print(f"{row['seconds']:>6} s  {row['result']:8} {row['form']}: {row['said']}", flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('words', nargs='*', help='only forms whose name has one of these words in it')
    p.add_argument('--anew', action='store_true', help='run again what has passed')
    p.add_argument('-n', type=int, default=2, metavar='N', help='so many at a time (default: 2)')
    p.add_argument('--list', action='store_true', help='show what is known and run nothing')
    a = p.parse_args()
    forms = {k: v for k,v in (tests() | dict(pages())).items() if not a.words or any(o in k for o in a.words)}
    rows = {k: r for k,r in known().items() if k in forms or a.words}
    order = longest_first(forms, rows)
    left = [k for k in order if a.anew or k not in rows or rows[k]['result'] != 'passed']
    todo = [] if a.list else left
    for k in order:
        if k not in todo: show(rows.get(k, dict(form=k, result='', seconds='', said='not run')))
    start = time.monotonic()
    pool = ThreadPoolExecutor(a.n)
    try:
        for done in as_completed([pool.submit(run, o, forms[o]) for o in todo]):
            row = done.result()
            rows[row['form']] = row
            show(row)
            write(rows)
    finally: pool.shutdown(cancel_futures=True)   # stopped by Ctrl-C, it starts no other
    got = [rows[k] for k in forms if k in rows]
    count = {k: sum(r['result'] == k for r in got) for k in ('passed', 'failed', 'skipped')}
    print(f"{len(forms)} forms, {', '.join(f'{n} {k}' for k,n in count.items())}; {sum(int(r['seconds']) for r in got)/60:.0f} min"
          f" of work, {(time.monotonic()-start)/60:.0f} min this time")
    return 1 if count['failed'] else 0

if __name__ == '__main__': sys.exit(main())
