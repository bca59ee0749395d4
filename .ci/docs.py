#!/usr/bin/env python3
"""Build the documentation site in _docs/ without Quarto, and fail on a broken link.

nbdev turns the notebooks into pages for readers in _proc/, smalldocs makes HTML of them. In between, what the
two see differently is settled: page names (nbdev's links leave out a notebook's number) and links to source
code (to pages of the site's own below source/). Afterwards formulas become MathML, which needs no network."""
import html, json, re, shutil, subprocess, sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import yaml
from nbdev.config import get_config, nbpath2html

ROOT = Path(__file__).resolve().parent.parent
PROC,DOCS,NBS = ROOT/'_proc',ROOT/'_docs',ROOT/'nbs'

# ---- between nbdev and smalldocs

def page_name(path): return nbpath2html(path).with_suffix('.ipynb')

def site_name(path):
    "The name of a page of _proc/ below the site, such as data/labels.ipynb for data/10_labels.ipynb."
    return page_name(path.relative_to(PROC)).as_posix()

def sidebar(entries):
    "The sidebar by page names, each `auto` pattern replaced by its pages, without empty sections."
    for e in entries:
        if isinstance(e, str): yield page_name(e).as_posix()
        elif 'auto' in e: yield from (site_name(p) for p in sorted(PROC.glob(e['auto'])))
        elif 'contents' in e:
            if inner := list(sidebar(e['contents'])): yield {**e, 'contents': inner}
        else: yield e

def fix_links(text, up):
    "Links to source code and to notebooks by the names of the site's pages; `up` leads to the site's top."
    def source(m): return f'[source]({up}source/{m[1]}.html#L-{m[2]}){{.source-link}}'
    text = re.sub(r'\[source\]\([^)]*?/laso/([\w/]+)\.py#L(\d+)\)\{[^}]*\}', source, text)
    def notebook(m): return f']({page_name(m[1]).as_posix()}'
    return re.sub(r'\]\(((?![a-z]+:)[^)#]*\.ipynb)', notebook, text)

def colab(name):
    "A line that opens the notebook `name` below nbs/ in Colab; none until pyproject.toml names a repository of GitHub."
    cfg = get_config(ROOT)
    if not (found := re.fullmatch(r'https://github\.com/([^/]+/[^/]+?)(\.git)?', cfg.git_url)): return ''
    page = f'https://colab.research.google.com/github/{found[1]}/blob/{cfg.branch}/nbs/{name}'
    return f"[Open in Colab]({page}), with `%pip install 'laso @ git+{cfg.git_url}'` as its first cell."

def add_colab(path, name):
    "Put the line below the title of a tutorial."
    if not (name.startswith('tutorials/') and (line := colab(name))): return
    nb = json.loads(path.read_text(encoding='utf8'))
    nb['cells'].insert(1, dict(cell_type='markdown', id='colab', metadata={}, source=line))
    path.write_text(json.dumps(nb), encoding='utf8')

TESTS = re.compile(r'\bassert |\b(test_\w+|expect_fail|refused)\(')

def only_tests(cell):
    "Does a code cell test something and show nothing?"
    return (cell['cell_type'] == 'code' and not cell.get('outputs')
            and bool(TESTS.search(''.join(cell['source']))))

def folded(cell):
    "The source of a cell that only tests, folded away."
    return '#| code-fold: true\n#| code-summary: Test\n' + ''.join(cell['source'])

def fix_page(path):
    "Rewrite links, fold tests away, and give a processed notebook its page name instead of an `output-file`."
    add_colab(path, path.relative_to(PROC).as_posix())
    nb,up = json.loads(path.read_text(encoding='utf8')),'../'*(len(path.relative_to(PROC).parts)-1)
    for c in nb['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'raw':   # keywords are for the search
            c['source'] = re.sub(r'^(output-file|keywords):.*\n(  .*\n)*', '', src, flags=re.M)
        if c['cell_type'] == 'markdown':
            c['source'] = fix_links(re.sub(r'\A(#\|.*\n)+', '', src), up)
        elif only_tests(c): c['source'] = folded(c)
        for o in c.get('outputs', []):
            if md := o.get('data', {}).get('text/markdown'):
                o['data']['text/markdown'] = fix_links(''.join(md), up).replace('__main__.', '')
    path.unlink()
    path.with_name(page_name(path).name).write_text(json.dumps(nb), encoding='utf8')

def process():
    "Fill _proc/ with pages that smalldocs can render; returns the notebooks that the sidebar does not show."
    shutil.rmtree(PROC, ignore_errors=True)
    # in one process that ends at once: at its end IPython would collect garbage for every page again, for half a minute
    code = 'import os; from nbdev.serve import proc_nbs; proc_nbs(n_workers=0); os._exit(0)'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
    cfg = yaml.safe_load((PROC/'_quarto.yml').read_text(encoding='utf8'))
    side = cfg['website']['sidebar']
    side['contents'] = list(sidebar(side['contents']))
    (PROC/'_quarto.yml').write_text(yaml.safe_dump(cfg, sort_keys=False), encoding='utf8')
    nbs = list(PROC.rglob('*.ipynb'))
    for p in nbs: fix_page(p)
    shown = json.dumps(side['contents'])
    return [str(p.relative_to(PROC)) for p in nbs if f'"{site_name(p)}"' not in shown]

# ---- after smalldocs

def mathml(page):
    "The page with MathML in the place of TeX, and without the scripts that would render TeX."
    from latex2mathml.converter import convert
    def one(m):
        try: res = convert(html.unescape(m[2]), display='block' if m[1] == 'display' else 'inline')
        except Exception as e:
            raise SystemExit(f'cannot convert the formula {m[2]!r}: {e!r}') from e
        return res.replace('<mi>&#x029F5;</mi>', '<mo>&#x02216;</mo>')   # few fonts have the first \\setminus
    math = r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>'
    page = re.sub(math, one, page, flags=re.S)
    return re.sub(r'<(?:link|script)\b[^>]*katex[^>]*>(?:</script>)?\n?', '', page)

class Page(HTMLParser):
    "The ids of a page, and its links and images with the line that each stands on."
    def __init__(self, text):
        super().__init__()
        self.ids,self.refs = set(),[]
        self.feed(re.sub(r'</span>|<span class="[^"]*">', '', text))   # without the colours of code, most of the tags
    def handle_starttag(self, tag, attrs):
        for k,v in attrs:
            if v and k in ('id', 'name'): self.ids.add(v)
            if v and k in ('href', 'src'): self.refs.append((v, self.getpos()[0]))

@cache
def read(path): return Page(path.read_text(encoding='utf8'))

def broken(site):
    "The links of the site's pages that lead nowhere: a missing file, or a missing place in a page."
    for p in sorted(site.rglob('*.html')):
        name = p.relative_to(site).as_posix()
        for ref,line in read(p).refs:
            u = urlsplit(ref)
            if u.scheme or u.netloc: continue
            start = site if u.path.startswith('/') else p.parent
            dest = start/unquote(u.path).lstrip('/') if u.path else p
            if dest.is_dir(): dest = dest/'index.html'
            if not dest.exists() or not dest.resolve().is_relative_to(site.resolve()):
                yield f'{name}:{line}: {ref}: no such file'
            elif u.fragment and dest.suffix == '.html' and unquote(u.fragment) not in read(dest).ids:
                yield f'{name}:{line}: {ref}: no such place in the page'

def drop_lost_places(page, path):
    "A name that nbdev links by itself may have no entry (a private one, a method): link to its page."
    def one(m):
        dest = path.parent/m[1] if m[1] else path
        if not dest.exists() or unquote(m[2]) in read(dest).ids: return m[0]
        return f'<a href="{m[1] or path.name}"{m[3]}><code'
    return re.sub(r'<a href="([^"#:]*)#([^"]*)"([^>]*)><code', one, page)

CODE_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>laso/{name}.py</title><style>body {{ margin: 1em; font-size: 14px }} a {{ color: inherit }}
{css}</style></head>
<body><p><a href="{up}{name}.html">The page of {name}</a></p>{code}</body></html>
"""
COLOURS = """{light} @media (prefers-color-scheme: dark) {{
body, .linenos a {{ background: #272822; color: #ddd }} {dark} }}"""

def source_pages(site):
    "The modules as pages with a place for each line (`#L-12`), in the reader's choice of light or dark."
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    form = HtmlFormatter(lineanchors='L', anchorlinenos=True, linenos='table')
    dark = HtmlFormatter(style='monokai').get_style_defs()
    css = COLOURS.format(light=form.get_style_defs(), dark=dark)
    for p in sorted((ROOT/'laso').rglob('*.py')):
        if p.stem.startswith('_'): continue
        name = p.relative_to(ROOT/'laso').with_suffix('')
        dest = (site/'source'/name).with_suffix('.html')
        dest.parent.mkdir(parents=True, exist_ok=True)
        code = highlight(p.read_text(encoding='utf8'), PythonLexer(), form)
        page = CODE_PAGE.format(name=name.as_posix(), up='../'*len(name.parts), css=css, code=code)
        dest.write_text(page, encoding='utf8')

def add_keywords(site):
    "Let the search find pages by the `keywords` of their first cell, each of which is an entry of its own."
    file,entries = site/'search.json',[]
    for p in sorted(NBS.rglob('*.ipynb')):
        head = ''.join(json.loads(p.read_text(encoding='utf8'))['cells'][0]['source'])
        if not (words := re.search(r'^- keywords: (.*)', head, flags=re.M)): continue
        title,about = (re.search(rf'^{o} (.*)', head, flags=re.M)[1] for o in '#>')
        href = page_name(p.relative_to(NBS)).with_suffix('.html').as_posix()
        entries += [dict(objectID=f'{href}#{w}', href=href, title=title, section=w, text=about)
                    for w in words[1].split(', ')]
    rest = json.loads(file.read_text(encoding='utf8'))
    file.write_text(json.dumps(entries + rest, ensure_ascii=False), encoding='utf8')

def finish(site):
    "Settle formulas, generated links and fonts in the pages of the site, and the words that its search knows."
    add_keywords(site)
    pages = sorted(site.rglob('*.html'))
    for p in pages:
        text = re.sub(r'<pre>(?=<code>[^<]*━)', '<pre class="wide">', p.read_text(encoding='utf8'))
        p.write_text(mathml(text), encoding='utf8')
    for p in pages: p.write_text(drop_lost_places(p.read_text(encoding='utf8'), p), encoding='utf8')
    read.cache_clear()
    for p in site.rglob('*.css'):   # the theme asks the network for a font; the reader's own will do
        css = re.sub(r'@import url\(["\']?https?:[^)]*\);?', '', p.read_text(encoding='utf8'))
        p.write_text(css, encoding='utf8')

def main():
    if sys.argv[1:] == ['--colab']:   # for Quarto, in a clone that is thrown away
        return [add_colab(p, p.relative_to(NBS).as_posix()) for p in NBS.rglob('*.ipynb')] and 0
    hidden = process()
    source_pages(PROC)
    tool = str(Path(sys.executable).with_name('smalldocs'))
    failed = subprocess.run([tool, 'render', '--strict', str(PROC)]).returncode
    if not (PROC/'_docs').exists(): return 1
    shutil.rmtree(DOCS, ignore_errors=True)
    shutil.move(PROC/'_docs', DOCS)
    shutil.copytree(PROC/'source', DOCS/'source', dirs_exist_ok=True)
    finish(DOCS)
    lost = [f'not in the sidebar: {p}' for p in hidden]
    lost += [f'broken link: {b}' for b in broken(DOCS)]
    said = '\n'.join(lost) or f'{DOCS.name}: every link leads somewhere'
    print(said, file=sys.stderr if lost else sys.stdout)
    return 1 if lost or failed else 0

if __name__ == '__main__': sys.exit(main())
