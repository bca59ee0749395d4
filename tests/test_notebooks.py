"Every notebook runs from top to bottom, each in a process of its own, without the cells whose flags say otherwise."
import os
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

@pytest.mark.skipif(not PHOTOS.is_dir(), reason='needs the photographs in ../shared/data/coco_subset')
def test_image_tour_of_photographs(in_clean_process):
    page = CFG.nbs_path/'tutorials/image_tour.ipynb'
    status,log = in_clean_process(run_notebook, page, [], LASO_PHOTOS=str(PHOTOS))
    assert status == 0, log
