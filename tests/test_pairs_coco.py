"The pair sampler on the real labels of COCO: as flat as the reference procedure, within its time and memory."
import subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from laso.core import multi_hot
from laso.data.labels import draw_pairs

FOLDER = Path(__file__).parents[2]/'shared/data/coco_labels'
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason='the labels of COCO are not here')

@pytest.fixture(scope='module')
def labels():
    "Labels of the 82,081 training images, (n, 80)."
    df = pd.read_csv(FOLDER/'labels.csv.gz')
    train = df[df.iloc[:,0].astype(str).str.contains('train2014') | (df.get('split', '') == 'train2014')]
    assert len(train) == 82081
    return multi_hot([l.split() for l in train.labels], (FOLDER/'classes.txt').read_text().split())

def reference(labels, n, rng):
    "The procedure as published: the least drawn label, an image of it; its least drawn label, another image of that."
    m = np.asarray(labels) > 0
    rows,hist,res = [np.flatnonzero(c) for c in m.T],np.zeros(m.shape[1]),[]
    while len(res) < n:
        x = rng.choice(rows[hist.argmin()])
        hist[m[x]] += 1
        shown = np.flatnonzero(m[x])
        y = rng.choice(rows[shown[hist[shown].argmin()]])
        hist[m[y]] += 1
        res.append((x, y))
    return torch.tensor(np.array(res))

def flatness(labels, pairs):
    "How often the rarest class, a class in the middle and the most frequent one are shown, relative to the mean."
    hist = labels[pairs].sum((0,1)).sort().values
    return (hist[[0, 40, 79]]/hist.mean()).numpy()

def test_histogram(labels):
    n = 20000
    ours,theirs = draw_pairs(labels, n, rng=np.random.default_rng(0)),reference(labels, n, np.random.default_rng(0))
    assert (labels[ours[:,0]]*labels[ours[:,1]]).any(1).all() and (ours[:,0] != ours[:,1]).all()
    np.testing.assert_allclose(flatness(labels, ours), flatness(labels, theirs), rtol=.03)
    rarest = labels.sum(0)/labels.sum(0).mean()
    assert flatness(labels, ours)[0] > 5*rarest.min()   # images as they come are far from flat

def test_memory(labels, tmp_path):
    "An epoch of 4 x 82,081 pairs adds less than 500 MB to what the labels take."
    torch.save(labels.bool(), tmp_path/'labels.pt')
    code = ('import resource,torch,numpy as np\nfrom laso.data.labels import draw_pairs\n'
            f'l = torch.load({str(tmp_path/"labels.pt")!r}, weights_only=True).float()\n'
            'mb = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024\n'
            'before = mb()\n'
            'p = draw_pairs(l, 4*len(l), rng=np.random.default_rng(0))\n'
            'print(len(p), mb()-before)')
    n,mb = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert int(n) == 4*82081 and float(mb) < 500
