"""Coverage-guided fuzzing of a reader, with atheris: `python tests/fuzz.py TARGET SECONDS`.

Whatever the bytes are, a reader works or raises `InputError` (or the `ValueError` that its callers put into one); anything else
ends the run with a traceback and status 1. `test_strangers.py` runs a minute of each."""
import io, os, sys, tempfile, zipfile
from pathlib import Path
import atheris
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
with atheris.instrument_imports(include=['laso', 'PIL']):
    import PIL.GifImagePlugin, PIL.PngImagePlugin, PIL.TiffImagePlugin, PIL.WebPImagePlugin
    from laso.data import decode as files, folder
    from laso.lab import official
    from laso.tag import tagger
    from laso.core import InputError
from laso.features.backbones import create_backbone
from laso.ops.kinds import set_ops

FOLDER = Path(tempfile.mkdtemp(prefix='laso-fuzz-'))
FILE = FOLDER/'file'

def csv(b):
    (FOLDER/'labels.csv').write_bytes(b)
    folder.read_folder(FOLDER, n_shot=1)

def of_file(read):
    def f(b):
        FILE.write_bytes(b)
        read(FILE)
    return f

def of_tagger(b):
    "What a tagger says of itself, beside the tensors of a good one."
    save_file(load_file(FOLDER/'good'), FILE, metadata=dict(laso=b.decode('utf-8', 'replace')))
    tagger.load_tagger(FILE)

TARGETS = dict(csv=csv, tensors=of_file(files.read_tensors), tagger=of_tagger, json=files.parse_json, array=of_file(files.read_array),
               picture=of_file(files.open_image), archive=of_file(files.check_archive), checkpoint=of_file(official.read_weights))

def seeds(target):
    "A few good files to start from."
    f = io.BytesIO()
    if target == 'csv': return [b'fname,labels,is_valid\na.png,dog cat,False\nb.png,"cat",True\n', b'\xef\xbb\xbffname,labels\na.png,dog\n']
    if target == 'json': return [b'{"tags": ["a"], "n": [1, 2.5e3, null, true]}']
    if target == 'tensors': return [save({'a': torch.zeros(2, 3), 'b': torch.zeros(1).half()}, dict(laso='{}'))]
    if target == 'array': np.save(f, np.zeros((2, 3), np.float32)); return [f.getvalue()]
    if target == 'checkpoint': return [saved({'a': torch.zeros(2)}), saved({'a': torch.zeros(2)}, _use_new_zipfile_serialization=False)]
    if target == 'archive':
        with zipfile.ZipFile(f, 'w') as z: z.writestr('a/b', 'c')
        return [f.getvalue()]
    if target == 'picture':
        im,res = Image.new('RGB', (5, 4), 'red'),[]
        for fmt in files.FORMATS: im.quantize(4).save(f := io.BytesIO(), fmt) if fmt == 'GIF' else im.save(f := io.BytesIO(), fmt); res.append(f.getvalue())
        return res
    backbone = create_backbone('test_efficientnet', size=32, weights='random')
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(4)]
    t = tagger.FewShotTagger.teach(images, [['a'], ['b'], ['a', 'b'], []], backbone=backbone, ops=set_ops('analytic', backbone.width))
    with safe_open(t.export(FOLDER/'good'), 'pt') as f: return [f.metadata()['laso'].encode()]

def saved(o, **kw):
    torch.save(o, f := io.BytesIO(), **kw)
    return f.getvalue()

def main(target, seconds):
    (FOLDER/'images').mkdir()
    for o in 'ab': Image.new('RGB', (2, 2)).save(FOLDER/'images'/f'{o}.png')
    corpus = FOLDER/'corpus'
    corpus.mkdir()
    for i,b in enumerate(seeds(target)): (corpus/str(i)).write_bytes(b)
    def once(b):
        try: TARGETS[target](b)
        except (InputError, ValueError): pass
    longest = max(o.stat().st_size for o in corpus.iterdir())+4096
    atheris.Setup([sys.argv[0], f'-max_total_time={seconds}', f'-max_len={longest}', '-rss_limit_mb=4096', f'-artifact_prefix={FOLDER}/', str(corpus)], once)
    atheris.Fuzz()

if __name__ == '__main__': main(sys.argv[1], int(sys.argv[2]))
