import re

import pytest
from omegaconf import OmegaConf

from src.runs.targets import TRUST, check_targets
from src.signals import BadInput


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


def test_the_user_can_trust_a_package(monkeypatch):
    monkeypatch.setenv(TRUST, "mylab, other")
    check_targets({"_target_": "mylab.nets.Net"})
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
