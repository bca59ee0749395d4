#!/usr/bin/env python3
"""List the cells whose stored output says something else than a run of today: other words, whatever the numbers.

Every page is run in a Jupyter kernel of its own, without the cells that start with `#| slow` or `#| cuda`. Look at each
cell of the list: some words depend on the machine, such as those about licences. With `--write` the new outputs of the
listed cells take the place of the old ones; name the pages then."""
import argparse, copy, difflib, os, re, sys
from html import unescape
from pathlib import Path
import nbformat
from nbclient import NotebookClient

NBS = Path(__file__).resolve().parent.parent/'nbs'
LEFT_OUT = re.compile(r'^#\| (slow|cuda|eval: false)|nbdev_export\(\)', re.M)
HIDDEN = re.compile(r'^#\| hide$', re.M)

def said(cell):
    "The words of what a cell shows, without numbers, addresses, temporary names and spaces."
    data = [o.data for o in cell.outputs if 'data' in o]
    text = ' '.join(o.get('text/html') or o.get('text/markdown') or o.get('text/plain') or '' for o in data)
    text = unescape(re.sub(r'<style.*?</style>|<[^>]*>', ' ', text, flags=re.S))
    text = re.sub(r' at 0x\w+>|\btmp\w{8}\b|\x1b\[[\d;]*m', '', text)
    return re.sub(r'[-+]?\.?\d[\d.,]*(e[-+]?\d+)?', '#', text).split()

def run(path):
    "The cells of a page as stored and as they come out now, in pairs."
    old = nbformat.read(path, 4)
    new = copy.deepcopy(old)
    new.cells = [c for c in new.cells if c.cell_type == 'code' and not LEFT_OUT.search(c.source)]
    NotebookClient(new, timeout=600, resources=dict(metadata=dict(path=path.parent))).execute()
    stored = {c.id: c for c in old.cells}
    return old,[(stored[c.id], c) for c in new.cells if not HIDDEN.search(c.source)]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('words', nargs='*', help='only pages whose path has one of these words in it')
    p.add_argument('--write', action='store_true', help='store the new outputs of the cells that are listed')
    a = p.parse_args()
    os.environ['LASO_PROGRESS'] = '0'
    for path in sorted(NBS.rglob('*.ipynb')):
        name = path.relative_to(NBS).as_posix()
        if path.name.startswith('_') or a.words and not any(o in name for o in a.words): continue
        page,pairs = run(path)
        other = [(o, n) for o,n in pairs if said(o) != said(n)]
        for old,new in other:
            print(f'{name}, cell {old.id}:')
            print(*(l for l in difflib.ndiff(said(old), said(new)) if l[0] in '+-'), sep='\n  ', flush=True)
            old.outputs = new.outputs
        if a.write and other: nbformat.write(page, path)
    return 0

if __name__ == '__main__': sys.exit(main())
