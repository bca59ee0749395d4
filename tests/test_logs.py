"Logs of experiments with the real packages, where they are installed."
import time
import pytest, torch
from laso.features.table import FeatureTable
from laso.train.recipes import ops_learner
from laso.train.callbacks import loggers

@pytest.fixture
def learn():
    g = torch.Generator().manual_seed(0)
    labels = (torch.rand(300, 6, generator=g) < .4).float()
    table = FeatureTable(labels @ torch.rand(6, 16, generator=g), labels, list('abcdef'), torch.arange(300) >= 200,
                         torch.arange(6) < 2)
    return ops_learner(table, 'mixture', n_pairs=128, bs=64)

def fit(learn, folder, name):
    with learn.no_bar(),learn.no_logging(): learn.fit_ops(2, cbs=loggers(folder, name))
    return learn.recorder.values[-1][2]   # mAP of the union

def test_tensorboard(learn, tmp_path):
    pytest.importorskip('tensorboard')
    want = fit(learn, tmp_path, 'tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path/'tensorboard')).Reload()
    assert events.Scalars('union')[-1].value == pytest.approx(want, abs=1e-5)

def test_mlflow(learn, tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f'sqlite:///{tmp_path}/mlflow.db')
    with mlflow.start_run() as run: want = fit(learn, tmp_path, 'mlflow')
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, 'union')
    assert len(history) == 2 and history[-1].value == pytest.approx(want, abs=1e-5)

def test_wandb(learn, tmp_path, monkeypatch):
    wandb = pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    want = fit(learn, tmp_path, 'wandb')
    run = wandb.run
    for _ in range(100):   # the summary may lag behind
        if run.summary['union'] == pytest.approx(want, abs=1e-5): break
        time.sleep(.1)
    assert run.summary['union'] == pytest.approx(want, abs=1e-5)
    run.finish()
    assert list((tmp_path/'wandb').glob('offline-run-*'))
