#!/usr/bin/env python3
"Write the slowest tests of a log of pytest, or of .ci/run, into CONTRIBUTING.md: `slowest.py LOG`."
import re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r'^([\d.]+)s (call|setup|teardown) +tests/(\S+)$', re.M)
BLOCK = re.compile(r'(<!-- slowest -->\n).*?(<!-- /slowest -->)', re.S)

def table(log, n=20):
    "The `n` slowest, in Markdown."
    rows = sorted(LINE.findall(log), key=lambda r: -float(r[0]))[:n]
    if not rows: raise SystemExit('expected a log of pytest with its slowest durations, found none')
    total = re.search(r'(\d+ passed.*?) in ([\d.]+)s', log)
    lines = [f'| {float(s):.0f} | `{name}` | {part} |' for s,part,name in rows]
    text = '\n'.join(['| seconds | test | part |', '|---|---|---|', *lines])
    return f'{text}\n\n{total[1]} in {float(total[2]):.0f} s.' if total else text

if __name__ == '__main__':
    file = ROOT/'CONTRIBUTING.md'
    new = table(Path(sys.argv[1]).read_text(encoding='utf8'))
    text = BLOCK.sub(lambda m: f'{m[1]}{new}\n{m[2]}', file.read_text(encoding='utf8'))
    file.write_text(text, encoding='utf8')
