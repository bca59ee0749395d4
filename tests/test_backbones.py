"The paper's backbones, at the sizes of the paper, without their weights."
import pytest, torch
from torch import nn
from laso.features.backbones import create_backbone
from laso.train.finetune import BackboneWithHead

@pytest.mark.parametrize('name,size,width', [('inception_v3', 299, 2048), ('resnet34', 224, 512), ('resnet50', 224, 2048),
                                             ('resnet50', 299, 2048)])
def test_backbones_of_the_paper(name, size, width):
    "Widths as published, non-negative features after the last ReLU, and gradients that reach the first layer."
    torch.manual_seed(0)
    backbone = create_backbone(name, size=size, weights='random')
    assert (backbone.size, backbone.width, backbone.nonneg) == (size, width, True)
    model = BackboneWithHead(backbone, nn.Linear(width, 64)).train()
    logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 64)
    logits.sum().backward()
    first = next(p for p in backbone.parameters() if p.dim() == 4)
    assert first.grad is not None and first.grad.abs().sum() > 0
