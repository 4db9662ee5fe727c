"""Every file of conf/ composes, its leaves fit the constructors they name, and a typo does not compose."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method
from omegaconf import OmegaConf

from src import schema
from src.signals import BadInput, SourceOptions

CONF = Path(__file__).resolve().parents[1] / "conf"
EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))
GROUPS = sorted(
    (folder.name, option.stem)
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name not in ("experiment", "preprocess", "hydra")
    for option in folder.glob("*.yaml")
)


@pytest.fixture(autouse=True)
def hydra_here():
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def text(group, option):
    return (CONF / group / f"{option}.yaml").read_text()


def leaves(config):
    """Every ``_target_`` block with its own keys."""
    if isinstance(config, dict):
        if config.get("_target_"):
            yield config["_target_"], {k: v for k, v in config.items() if not k.startswith("_")}
        for value in config.values():
            yield from leaves(value)


def check(config, kept=()):
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for target, given in leaves({k: v for k, v in plain.items() if k not in ("hydra", *kept)}):
        try:
            call: Any = get_class(target)
        except ValueError:
            call = get_method(target)
        parameters = inspect.signature(call).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            assert not target.startswith("src."), f"{target} swallows unknown keys"
            continue
        assert set(given) <= set(parameters), f"{target} does not know {sorted(set(given) - set(parameters))}"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_fits(experiment):
    config = compose("train", [f"experiment={experiment}"])
    assert config.name == experiment
    check(config)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_a_small_delta_with_a_header(experiment):
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert any("Expect" in line for line in lines[:8])
    assert sum(bool(line.strip()) and not line.startswith("#") for line in lines) <= 15


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_option_composes(group, option):
    text = (CONF / group / f"{option}.yaml").read_text()
    root = [f"{group}.{key}=somewhere" for key in ("root", "path") if f"{key}: ???" in text]
    experiment = "spike_detector" if option.startswith("spike") else "sleep_cnn"  # models read their own datamodule
    check(compose("train", [f"experiment={experiment}", f"{group}={option}", *root]))


@pytest.mark.parametrize("step", sorted(p.stem for p in (CONF / "preprocess").glob("*.yaml")))
def test_every_preprocessing_step_composes(step):
    config = compose("preprocess", [f"preprocess={step}", "input_dir=in", "output_dir=out"])
    check(config, kept={"only", "part", "parts"})  # by preprocess.py for itself


@pytest.mark.parametrize("launcher", ["joblib", *(p.stem for p in (CONF / "hydra" / "launcher").glob("*.yaml"))])
def test_every_launcher_composes(launcher):
    compose("train", ["experiment=sleep_cnn", f"hydra/launcher={launcher}"], return_hydra_config=True)


@pytest.mark.parametrize("primary", ["train", "infer", "preprocess"])
def test_primaries_are_short(primary):
    assert len((CONF / f"{primary}.yaml").read_text().splitlines()) <= 40


def test_every_option_of_a_predictor_can_be_given():
    import infer
    from src.schema import InferOptions

    predictors = [importlib.import_module(module).predict for module in infer.PREDICTORS.values()]
    predictors += [getattr(importlib.import_module(module), name) for module, name in infer.METHODS.values()]
    predictors.append(importlib.import_module("src.predict.lfp").predict)
    takes = {option for predict in predictors for option in infer.known_options(predict)}
    takes -= {"labelled", infer.READS}
    assert takes == set(InferOptions.__dataclass_fields__)


def test_an_option_of_another_task_is_refused():
    import infer
    from src.predict.sleep import predict

    cfg = compose("infer", ["bundle=b", "input=i", "options.truth=x"])
    with pytest.raises(BadInput, match=r"options.truth: is no option of sleep_staging; choose from: kind, channels"):
        infer.given_options(cfg, predict, "sleep_staging")
    cfg = compose("infer", ["bundle=b", "input=i", "source.dtype=int16"])
    with pytest.raises(BadInput, match="source: sleep_staging takes none of its keys"):
        infer.given_options(cfg, predict, "sleep_staging")


def test_spikes_and_lfp_take_the_block_source():
    import infer
    from src.predict.lfp import score_states
    from src.predict.spike_discovery import discover_units
    from src.predict.spikes import sort_with_bank

    cfg = compose("infer", ["input=i", "source.dtype=int16", "source.channels=4", "source.fs_hz=15000"])
    expected = {"source_options": SourceOptions(dtype="int16", channels=4, fs_hz=15000.0)}
    for predict in (score_states, discover_units, sort_with_bank):
        assert infer.given_options(cfg, predict, "x") == expected


def test_modules_in_python_are_trained_as_conf_says():
    trained_module = importlib.import_module("src.models.trained_module")
    assert OmegaConf.create(text("optimizer", "adamw")) == trained_module.ADAMW
    assert OmegaConf.create(text("scheduler", "warmup_cosine")) == trained_module.WARMUP_COSINE
