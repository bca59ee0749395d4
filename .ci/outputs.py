#!/usr/bin/env python3
"""List the cells whose stored output says something else than a run of today: other words, whatever the numbers.

Every page is run in a Jupyter kernel of its own, without the cells that start with `#| slow` or `#| cuda`. Look at each
cell of the list: some words depend on the machine, such as those about licences. With `--write` the new outputs of the
listed cells take the place of the old ones; name the pages then, and run `nbdev-clean`."""
import argparse, difflib, os, re
from html import unescape
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from nbdev.doclinks import nbglob

NBS = Path(__file__).resolve().parent.parent/'nbs'
LEFT_OUT = re.compile(r'^#\| (slow|cuda|eval: false)|nbdev_export\(\)', re.M)
HIDDEN = re.compile(r'^#\| hide$', re.M)

def in_text(output):
    "What is printed, or shown; of HTML what stands between the tags: tables have all of their columns there."
    if output.output_type == 'stream': return output.text if output.name == 'stdout' else ''
    data = output.get('data', {})
    if page := data.get('text/html'): return unescape(re.sub(r'<style.*?</style>|<[^>]*>', ' ', page, flags=re.S))
    return data.get('text/markdown') or data.get('text/plain') or ''

def said(cell):
    "The words of what a cell shows, without numbers, addresses, temporary names and spaces."
    text = ' '.join(map(in_text, cell.outputs))
    text = re.sub(r' at 0x\w+>|\btmp\w{8}\b|\x1b\[[\d;]*m', '', text)
    return re.sub(r'[-+]?\.?\d[\d.,]*(e[-+]?\d+)?', '#', text).split()

def differences(old, new):
    "A line for each word that one of two cells says and the other does not."
    return list(difflib.unified_diff(said(old), said(new), n=0, lineterm=''))[2:]   # without the names of two files

def run(path):
    "The cells of a page as stored and as they come out now, in pairs."
    old,new = (nbformat.read(path, 4) for _ in range(2))
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
    for path in sorted(nbglob(NBS, as_path=True)):
        name = path.relative_to(NBS).as_posix()
        if a.words and not any(o in name for o in a.words): continue
        page,pairs = run(path)
        for old,new in pairs:
            if not (lines := differences(old, new)): continue
            print(f'{name}, cell {old.id}:', *lines, sep='\n  ', flush=True)
            if a.write:
                old.outputs = new.outputs
                nbformat.write(page, path)

if __name__ == '__main__': main()
