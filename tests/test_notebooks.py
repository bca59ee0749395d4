"Every notebook runs from top to bottom, each in a process of its own, without the cells whose flags say otherwise."
import csv, os, shutil
from collections import Counter
from pathlib import Path
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT.parent/'shared/data/coco_subset'
CFG = get_config(ROOT)
NOTEBOOKS = sorted(p.relative_to(CFG.nbs_path).as_posix() for p in nbglob(CFG.nbs_path, as_path=True)
                   if not (p.parent/'.notest').exists())   # with the folder, such as data/10_labels.ipynb

def run_notebook(path, flags, **env):
    os.environ.update(env)
    from nbdev.test import test_nb
    return test_nb(path, skip_flags=CFG.tst_flags.split(), force_flags=flags, basepath=ROOT,
                   cell_timing_min=2)[0]

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook(name, in_clean_process, pytestconfig):
    flags = pytestconfig.getoption('--nb-flags').split()
    status,log = in_clean_process(run_notebook, CFG.nbs_path/name, flags)
    print(log)
    assert status == 0, f'{name} fails:\n{log}'

def some_of(photos, folder, valid=2, train=5):
    "A folder with so many validation and training images of each class, and no more than that takes."
    with open(photos/'labels.csv', newline='') as f: rows = list(csv.DictReader(f))
    count,kept = Counter(),[]
    for r in rows:
        shown = [(o, r['is_valid']) for o in r['labels'].split()]
        if any(count[o] < (valid if o[1] == 'True' else train) for o in shown):
            kept.append(r)
            count.update(shown)
    (folder/'images').mkdir()
    for r in kept: (folder/'images'/r['fname']).symlink_to(photos/'images'/r['fname'])
    with open(folder/'labels.csv', 'w', newline='') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader(); w.writerows(kept)
    for o in 'classes.txt', 'novel.txt': shutil.copy(photos/o, folder)
    return folder

@pytest.mark.skipif(not PHOTOS.is_dir(), reason='needs the photographs in ../shared/data/coco_subset')
@pytest.mark.parametrize('whole', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_image_tour_of_photographs(whole, in_clean_process, tmp_path):
    page,photos = CFG.nbs_path/'tutorials/image_tour.ipynb',PHOTOS if whole else some_of(PHOTOS, tmp_path)
    status,log = in_clean_process(run_notebook, page, [], LASO_PHOTOS=str(photos))
    assert status == 0, log
