"The released checkpoints: every key and shape that the authors' files have, on modules without memory."
import json
from pathlib import Path
import pytest, timm, torch
from laso.core import OPS
from laso.lab.official import Discriminator, _DISCRIMINATOR, _PAPER, _RESIDUAL, _rename
from laso.ops.networks import PaperNet, ResidualNet

FILE = Path(__file__).resolve().parent.parent.parent/'shared/data/official_checkpoint_keys.json'
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason='needs ../shared/data/official_checkpoint_keys.json')

def keys(start):
    "Names and shapes in the file whose description begins so."
    return next(v for k,v in json.loads(FILE.read_text()).items() if k.startswith(start))

def fits(module, shapes, names):
    own = {k: list(v.shape) for k,v in module.state_dict().items()}
    assert own == {k: list(v) for k,v in _rename(shapes, names).items()}

@pytest.mark.parametrize('op,file', [('union', 'paperInterModel and paperUnionModel'), ('subtraction', 'paperSubModel'),
                                     ('intersection', 'paperInterModel and paperUnionModel')])
def test_paper_operators(op, file):
    with torch.device('meta'): fits(PaperNet(op, 2048), keys(file), _PAPER)

def test_residual_operators():
    shapes = keys('networks_setops_model')
    for op,name in zip(OPS, ('union_op.', 'intersect_op.', 'subtract_op.')):
        with torch.device('meta'): net = ResidualNet(op, 2048)
        fits(net, {k.removeprefix(name): v for k,v in shapes.items() if k.startswith(name)}, _RESIDUAL)

def test_discriminator():
    with torch.device('meta'): fits(Discriminator(2048, 80), keys('paperDiscriminator'), _DISCRIMINATOR)

def test_base_model():
    fits(timm.create_model('inception_v3', pretrained=False, num_classes=0), keys('paperBaseModel (under'), {})
    assert keys('paperBaseModel: classifier') == {'fc.weight': [80, 2048], 'fc.bias': [80]}

def test_resnet50_is_torchvisions():
    from torchvision.models import resnet50
    own = {k: v.shape for k,v in timm.create_model('resnet50', pretrained=False, num_classes=0).state_dict().items()}
    assert own == {k: v.shape for k,v in resnet50(weights=None).state_dict().items() if not k.startswith('fc.')}
