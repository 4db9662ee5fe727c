import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from src.runs.assemble import assemble
from src.runs.targets import check, check_targets, imported_arguments, written_arguments
from src.signals import TRUST, BadInput
from tests.runs.test_assemble import configured


@pytest.mark.parametrize(
    "target",
    [
        "pytorch_lightning.Trainer",
        "pytorch_lightning.callbacks.EarlyStopping",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "src.models.sleep.stager.SleepStager",
        "src.datamodules.sleep.SleepData",
        "src.datamodules.sleep.Absent",
    ],
)
def test_what_a_configuration_has_to_name_is_allowed(target):
    check_targets({"a": [{"_target_": target}]})


@pytest.mark.parametrize(
    "target",
    [
        "numpy.load",
        "os.system",
        "builtins.eval",
        "hydra.utils.get_method",
        "src.storage.atomic.atomic_folder",
        "src.models.bundle.load_bundle",
        "src.models.bundle.json.loads",
        "src.datamodules.sleep.np.load",
        "src.preprocess.lfp.spectrograms.Path",
        "torch.optim.adam.torch.load",
        "torch.nn.functional.relu",
        "torch.load",
        "src.runs.sweep.shlex.join",
        7,
    ],
)
def test_anything_else_is_refused_by_name(target):
    with pytest.raises(BadInput, match="may not run") as caught:
        check_targets({"model": {"x": [{"_target_": target}]}})
    assert str(caught.value).startswith(f"model.x[0]._target_: names {target},")


def test_a_name_from_elsewhere_in_the_configuration_is_followed():
    with pytest.raises(BadInput, match=r"os\.system"):
        check_targets(OmegaConf.create({"a": {"_target_": "${b}"}, "b": "os.system"}))


class Scaled(torch.nn.Module):
    """A network of the user's own, whose width is a factor."""

    def __init__(self, width: float) -> None:
        super().__init__()


def test_a_network_of_the_users_own_says_itself_what_its_arguments_mean():
    own = [f"model.kind={__name__}.Scaled", "~model.network_args", "+model.network_args={width: 0.5}"]
    check(configured(*own))


def test_the_user_can_trust_a_package(monkeypatch):
    monkeypatch.setenv(TRUST, "mylab, other.nets")
    check_targets([{"_target_": "mylab.nets.Net"}, {"_target_": "other.nets.Net"}])
    with pytest.raises(BadInput, match="export NEUROLIT_TRUST=other"):
        check_targets({"_target_": "other.data.Net"})
    with pytest.raises(BadInput, match="export NEUROLIT_TRUST=mylabs"):
        check_targets({"_target_": "mylabs.nets.Net"})


def test_everything_that_the_repository_names_is_allowed(repository):
    names = {
        m
        for p in (repository / "conf").rglob("*.yaml")
        for m in re.findall(r"^\s*_target_: (\S+)", p.read_text(), re.M)
    }
    assert len(names) > 10
    check_targets([{"_target_": name} for name in names])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+model.lrr=1", r"model.lrr: is no argument of SleepStager; it takes signal"),
        ("+model.lr=1", r"model.lr: is no argument of SleepStager; give optimizer.lr"),
        ("+optimizer.weigt_decay=1", r"optimizer.weigt_decay: .* AdamW; did you mean optimizer.weight_decay\?"),
        ("+scheduler.warmpu=1", r"scheduler.warmpu: is no argument of warmup_cosine; did you mean scheduler.warmup\?"),
        ("+datamodule.batchsize=1", r"datamodule.batchsize: .* did you mean datamodule.batch_size\?"),
        ("+model.network_args.filter=1", r"model.network_args.filter: .* did you mean model.network_args.filters\?"),
        ("model.kind=sleep_epoch_cn", r"model.kind: 'sleep_epoch_cn' is no network; did you mean sleep_epoch_cnn\?"),
        ("model.kind=mylab.nets.MyNet", r"model.kind: .* if you trust mylab: export NEUROLIT_TRUST=mylab"),
        ("model.kind=spike_detector", r"model.kind: 'spike_detector' is known, but trained by another module"),
        ("+callbacks.x._target_=foo", r"callbacks.x._target_: 'foo' cannot be imported"),
        ("+callbacks.x.patience=3", r"callbacks.x: names no _target_"),
        ("+callbacks.early_stopping.paitence=3", r"did you mean callbacks.early_stopping.patience\?"),
        ("+trainer.logger=true", r"trainer.logger: is set by train.py; give logger instead"),
        ("+model.classes=[a]", r"model.classes: is set by train.py; give datamodule"),
        ("+trainer.fast_dev_run=true", r"trainer.fast_dev_run: is set by train.py; give debug=fast instead"),
        ("+trainer.max_epoch=1", r"trainer.max_epoch: .* did you mean trainer.max_epochs\?"),
        ("trainer.max_epochs=two", r"trainer.max_epochs: is 'two'; give int or null"),
        ("optimizer.lr=fast", r"optimizer.lr: is 'fast'; give float or Tensor"),
        (
            "+trainer.callbacks=[{_target_: pytorch_lightning.callbacks.EarlyStoping}]",
            r"trainer.callbacks\[0\]._target_: .* cannot be imported",
        ),
        (
            "+trainer.callbacks=[{_target_: pytorch_lightning.callbacks.EarlyStopping, paitence: 2}]",
            r"did you mean trainer.callbacks\[0\].patience\?",
        ),
        ("seed=-1", r"seed: is -1; give a number from 0 to 4294967295"),
        ("patience=-3", r"patience: is -3; give 0 or more"),
        ("workers=-1", r"workers: is -1"),
        ("model.label_smoothing=2", r"model.label_smoothing: is 2; give a number from 0 to 1"),
        ("model.network_args.width=0", r"model.network_args.width: is 0; give 1 or more"),
        ("model.network_args.dropout=1.5", r"model.network_args.dropout: is 1.5"),
        ("model.optimizer=null", r"model.optimizer: is empty"),
        ("optimizer.lr=-1", r"optimizer or scheduler: Invalid learning rate: -1"),
        ("scheduler.warmup=2", r"scheduler.warmup: is 2; give a number from 0 to 1"),
        ("trainer.max_epochs=0", r"trainer.max_epochs: is 0, so nothing would be trained"),
        ("trainer.max_epochs=-1", r"scheduler: .* needs the number of steps"),
        ("+trainer.limit_val_batches=0", r"trainer.limit_val_batches: is 0"),
        ("trainer.accelerator=foo", r"trainer: You selected an invalid accelerator name"),
        ("+trainer.max_time=foo", r"trainer: .* is not a valid duration"),
        ("split=file", r"split.path is not given; add split.path="),
        ("split.val=-0.1", r"datamodule.split.val: is -0.1; give a number from 0 to 1"),
        ("split.test=0.8", r"datamodule.split: val and test together are 1; lower the shares"),
        ("+split.foo=1", r"datamodule.split.foo: is no parameter of a split; fraction takes val, test"),
        ("datamodule.batch_size=-4", r"datamodule.batch_size: is -4; give 1 or more"),
        ("datamodule.augment.gain_db=-1", r"datamodule.augment.gain_db: is -1"),
        ("datamodule.epochs.margin_s=-5", r"epochs.margin_s: is -5"),
        ("datamodule.epochs.channels=EEG", r"epochs.channels: 'EEG' is no list of names"),
        ("+datamodule.epochs.foo=3", r"datamodule: .* got an unexpected keyword argument 'foo'"),
        ("source=bandpower", r"source: Sleep-EDF .*no folder is given; python preprocess.py preprocess=sleep_edf"),
        ("source=edf_folder", r"source: edf_folder: no folder is given; .* source.root=<folder>"),
        ("source=sleep_excerpts", r"source: DREAMS sleep spindles: no folder is given; download"),
    ],
)
def test_mistakes_are_named_before_any_data_are_touched(override, message, monkeypatch):
    monkeypatch.setattr("src.datamodules.sleep.prepare_nights", None)
    with pytest.raises(BadInput, match=message):
        assemble(configured(override))


@pytest.mark.parametrize(
    ("experiment", "override", "message"),
    [
        ("sleep_context", "datamodule.window_epochs=0", r"datamodule.window_epochs: is 0"),
        ("sleep_context", "datamodule.views=[foo]", r"views: foo: not known"),
        ("sleep_context", "datamodule.augment.channel_dropout=2", r"augment.channel_dropout: is 2"),
        ("sleep_context", "callbacks.average.avg_fn.decay=2", r"avg_fn.decay: is 2"),
        ("grid_forecast", "datamodule.split.gap_frames=-5", r"datamodule.split.gap_frames: is -5"),
        ("grid_forecast", "datamodule.simulated.common.frames=-1", r"datamodule.simulated.frames: is -1"),
        ("grid_forecast", "+datamodule.simulated.foo=1", r"datamodule.simulated: has to hold seed"),
        ("grid_forecast", "datamodule.simulated.subjects=[]", r"datamodule.simulated: .* one subject or more"),
        ("spike_detector", "datamodule.examples.batches=0", r"datamodule.examples.batches: is 0"),
        ("spike_detector", "+datamodule.examples.foo=1", r"datamodule: .* unexpected keyword argument 'foo'"),
        ("spike_detector", "+datamodule.conditioning.foo=1", r"datamodule: .* unexpected keyword argument 'foo'"),
        ("spike_detector", "+datamodule.split.foo=1", r"datamodule.split.foo: is no parameter"),
        ("spike_detector", "datamodule.recording.n_units=0", r"datamodule.recording.n_units: is 0"),
    ],
)
def test_numbers_that_make_no_sense_are_named_before_any_data_are_touched(experiment, override, message, monkeypatch):
    for place in ("datamodules.sleep.prepare_nights", "datamodules.grids.ensure", "datamodules.spikes.ensure"):
        monkeypatch.setattr(f"src.{place}", None)
    with pytest.raises(BadInput, match=message):
        assemble(configured(override, experiment=experiment))


def test_another_optimizer_and_no_scheduler_reach_the_model():
    cfg = configured("optimizer=sgd", "scheduler=constant", "optimizer.lr=0.5")
    check(cfg)
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    assert model["optimizer"]["_target_"] == "torch.optim.SGD"
    assert model["optimizer"]["lr"] == 0.5
    assert not model["scheduler"]


@pytest.mark.parametrize(
    "target",
    [
        *("src.models.sleep.stager.SleepStager", "src.datamodules.sleep.SleepData", "src.runs.tracking.wandb_tracker"),
        *("pytorch_lightning.Trainer", "torch.optim.AdamW", "pytorch_lightning.callbacks.EarlyStopping"),
        *("src.models.schedule.warmup_cosine", "pytorch_lightning.loggers.WandbLogger"),
    ],
)
def test_the_source_says_what_the_constructor_does(target):
    written, imported = written_arguments(target), imported_arguments("x", target)
    assert (written and list(written)) == (imported and list(imported))


@pytest.mark.parametrize("target", ["os.system", "no.such.Thing", "numpy.load", "Thing", "torch.optim.lr_scheduler"])
def test_a_source_that_says_nothing_is_left_to_the_import(target):
    assert written_arguments(target) is None


def test_a_mistyped_key_is_reported_without_loading_torch(repository):
    code = (
        "import runpy, sys\nsys.argv = ['train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "finally: print('torch' in sys.modules)"
    )
    line = [sys.executable, "-c", code, "experiment=sleep_cnn", "+model.lrr=1"]
    done = subprocess.run(line, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is no argument" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
