"What several tests say or make in the same words."
import io
import numpy as np
import pytest, torch
from PIL import Image
from laso.core import InputError

def refused(f, *parts):
    "`f` raises one plain sentence with all of the parts."
    with pytest.raises(InputError) as e: f()
    text = str(e.value)
    assert text.startswith('expected ') and ', found ' in text and '; ' in text and text.isprintable() and len(text) < 2500, text
    for o in parts: assert o in text, text
    return text

def saved(o, **kw):
    "The bytes of a checkpoint of PyTorch."
    f = io.BytesIO()
    torch.save(o, f, **kw)
    return f.getvalue()

def image(seed, size=(32, 32)):
    "An image of noise."
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
