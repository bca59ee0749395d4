"""Coverage-guided fuzzing of a reader, with atheris: `python tests/fuzz.py TARGET SECONDS`.

Whatever the bytes are, a reader works or raises `InputError` (or the `ValueError` that its callers put into one); anything else
ends the run with a traceback and status 1. `test_strangers.py` runs a minute of each."""
import io, json, os, sys, tempfile, zipfile
from pathlib import Path
import atheris
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
with atheris.instrument_imports(include=['laso', 'PIL']):
    import PIL.GifImagePlugin, PIL.PngImagePlugin, PIL.TiffImagePlugin, PIL.WebPImagePlugin
    from laso.data import decode, files, folder, layouts
    from laso.data.archives import check_archive
    from laso.lab import official
    from laso.tag import tagger
    from laso.core import InputError
from helpers import saved
from laso.features.backbones import create_backbone
from laso.ops.kinds import SetOps, set_ops

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

def of_operators(b):
    "Settings of operators beside good tensors."
    (FOLDER/'ops'/'operators.json').write_bytes(b)
    SetOps.load(FOLDER/'ops')

def of_pickle(b):
    "The pickle in a checkpoint in the zip format; a mutated zip is hardly ever one."
    with zipfile.ZipFile(FOLDER/'zip') as old, zipfile.ZipFile(FILE, 'w') as new:
        for o in old.namelist(): new.writestr(o, b if o.endswith('data.pkl') else old.read(o))
    official.read_weights(FILE)

def coco(b):
    for o in 'train', 'val': (FOLDER/'annotations'/f'instances_{o}2017.json').write_bytes(b)
    layouts.read_coco(FOLDER)

def voc(b):
    (FOLDER/'Annotations'/'000001.xml').write_bytes(b)
    layouts.read_voc(FOLDER)

TARGETS = dict(operators=of_operators, pickle=of_pickle, coco=coco, voc=voc, csv=csv, tensors=of_file(decode.read_tensors), tagger=of_tagger, json=files.parse_json, array=of_file(decode.read_array),
               picture=of_file(decode.open_image), archive=of_file(check_archive), checkpoint=of_file(official.read_weights))

def seeds(target):
    "A few good files to start from."
    f = io.BytesIO()
    if target == 'csv': return [b'fname,labels,is_valid\na.png,dog cat,False\nb.png,"cat",True\n', b'\xef\xbb\xbffname,labels\na.png,dog\n']
    if target == 'json': return [b'{"tags": ["a"], "n": [1, 2.5e3, null, true]}']
    if target == 'tensors': return [save({'a': torch.zeros(2, 3), 'b': torch.zeros(1).half()}, dict(laso='{}'))]
    if target == 'array': np.save(f, np.zeros((2, 3), np.float32)); return [f.getvalue()]
    if target == 'checkpoint': return [saved({'a': torch.zeros(2)}), saved({'a': torch.zeros(2)}, _use_new_zipfile_serialization=False)]
    if target == 'coco': return [b'{"categories": [{"id": 1, "name": "a"}], "images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}]}']
    if target == 'voc': return [b'<annotation><filename>a.png</filename><object><name>a</name><difficult>0</difficult></object></annotation>']
    if target == 'operators':
        for kind in 'mixture', 'logic': set_ops(kind, 4, h=3).save(FOLDER/'ops')
        config = json.loads((FOLDER/'ops'/'operators.json').read_text())
        del config['digest']
        return [json.dumps(config).encode(), b'{"kind": "blend", "d": 4, "blend": {"union": "max"}, "rescale": true, "p": 0.5}']
    if target == 'pickle':
        (FOLDER/'zip').write_bytes(saved({'a': torch.zeros(2), 'b': torch.nn.Linear(1, 1).state_dict(), 'c': torch.Size([1])}))
        with zipfile.ZipFile(FOLDER/'zip') as z: return [z.read(next(o for o in z.namelist() if o.endswith('data.pkl')))]
    if target == 'archive':
        with zipfile.ZipFile(f, 'w') as z: z.writestr('a/b', 'c')
        return [f.getvalue()]
    if target == 'picture':
        im,res = Image.new('RGB', (5, 4), 'red'),[]
        for fmt in decode.FORMATS: im.quantize(4).save(f := io.BytesIO(), fmt) if fmt == 'GIF' else im.save(f := io.BytesIO(), fmt); res.append(f.getvalue())
        return res
    backbone = create_backbone('test_efficientnet', size=32, weights='random')
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(4)]
    t = tagger.FewShotTagger.teach(images, [['a'], ['b'], ['a', 'b'], []], backbone=backbone, ops=set_ops('analytic', backbone.width))
    with safe_open(t.export(FOLDER/'good'), 'pt') as f: return [f.metadata()['laso'].encode()]

def main(target, seconds):
    (FOLDER/'images').mkdir()
    for o in 'ab': Image.new('RGB', (2, 2)).save(FOLDER/'images'/f'{o}.png')
    for o in 'annotations', 'Annotations', 'ImageSets/Main': (FOLDER/o).mkdir(parents=True)
    for o in 'train', 'val': (FOLDER/'ImageSets'/'Main'/f'{o}.txt').write_text('000001\n')
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
