#!/usr/bin/env python3
"Write README.md, which is nbs/index.ipynb as plain Markdown, and the images that its cells show."
import base64, re, sys
from pathlib import Path
import nbformat

ROOT = Path(__file__).resolve().parent.parent

def split_directives(src):
    "The `#|` lines at the top of a cell as `{name: value}`, and what follows them."
    lines = src.splitlines()
    n = next((i for i,l in enumerate(lines) if not l.startswith('#|')), len(lines))
    pairs = (re.split(r'[:\s]+', l[2:].strip(), maxsplit=1) for l in lines[:n])
    return {p[0]: p[1] if len(p) > 1 else 'true' for p in pairs}, '\n'.join(lines[n:]).strip('\n')

def links(src):
    "Links lead into nbs/."
    return re.sub(r'(\]\()(?![a-z]+:|#|/)', r'\1nbs/', src)

def markdown(src, first):
    "A Markdown cell; in the title cell the quoted line becomes a paragraph and front-matter items go."
    if first: src = re.sub(r'^- \w+:.*\n?', '', re.sub(r'^> ?', '\n', src, flags=re.M), flags=re.M).strip()
    return links(src)

def output(out, name, pics, alt=''):
    "One stored output: a table or text as it is, an image as a link to `nbs/images/`, which is filled into `pics`."
    data = out.get('data', {})
    kind = next((k for k in ('text/markdown','image/png','image/jpeg','text/html','text/plain') if k in data), None)
    if kind and kind.startswith('image/'):
        file = f"images/{name}.{kind[6:].replace('jpeg', 'jpg')}"
        pics[file] = base64.b64decode(data[kind])
        return f'![{alt}](nbs/{file})'
    if kind == 'text/html': return re.sub(r'<(style|script)\b.*?</\1>', '', data[kind], flags=re.S).strip()
    if kind == 'text/markdown': return links(data[kind].strip())
    text = data[kind] if kind else out.get('text', '')
    return '\n'.join(f'    {l}'.rstrip() for l in text.rstrip().splitlines())

def code(cell, n, pics):
    "A code cell and its outputs; nothing for a hidden one."
    opts,src = split_directives(cell.source)
    if {'hide','default_exp'} & set(opts) or opts.get('include') == 'false': return []
    parts = [] if opts.get('echo') == 'false' or not src else [f'```python\n{src}\n```']
    if opts.get('output') == 'false': return parts
    alt = opts.get('fig-alt', '').strip('"')
    return parts + [output(o, f'index-{n}-{i}', pics, alt) for i,o in enumerate(cell.outputs)]

def render(path):
    "The Markdown of the notebook at `path`, and its images as `{path below nbs: bytes}`."
    parts,pics = ['<!-- Made from nbs/index.ipynb by .ci/readme.py: edit the notebook, not this file. -->'],{}
    for n,cell in enumerate(nbformat.read(path, 4).cells):
        if cell.cell_type == 'code': parts += code(cell, n, pics)
        elif (src := markdown(split_directives(cell.source)[1], n == 0)) and not src.endswith(' -'): parts.append(src)
    return '\n\n'.join(p for p in parts if p) + '\n', pics

if __name__ == '__main__':
    text,pics = render(ROOT/'nbs/index.ipynb')
    (ROOT/'README.md').write_text(text, encoding='utf8')
    for old in (ROOT/'nbs/images').glob('index-*'): old.unlink()
    for name,data in pics.items(): (ROOT/'nbs'/name).write_bytes(data)
    print(f'README.md: {len(text.splitlines())} lines, {len(pics)} images')
