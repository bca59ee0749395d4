"Training with fastai, which is imported here once, without the warning that its use of `torch.jit` brings."
import warnings

with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='.*torch.jit.script', category=FutureWarning)
    import fastai.vision.all
