import json
from importlib import import_module

import pytest
import torch

from src.models.bundle import NETWORKS, Bundle, build_network, export_bundle, load_bundle
from src.signals import BadInput, SignalSpec

ARGS = {"n_channels": 1, "n_freqs": 8, "n_frames": 9, "n_classes": 3, "filters": 4, "width": 8, "blocks": 1}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("sleep_epoch_cnn", ARGS).eval()


def describe(**changes):
    fields = {
        "task": "sleep_staging",
        "kind": "sleep_epoch_cnn",
        "network_args": ARGS,
        "signal": SignalSpec(("EEG",), 100.0, 30.0, "uV", ("channel", "freq", "time"), (1, 8, 9)),
        "stages": [],
        "classes": ["a", "b", "c"],
        "decision": {"temperature": 1.0},
        "metrics": {},
        "split": {},
        "provenance": {},
    }
    return Bundle(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path, network):
    return export_bundle(tmp_path / "run" / "bundle", describe(), network.state_dict())


def edit(folder, **changes):
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_bundle_gives_the_same_logits_and_is_found_from_its_run(folder, network):
    x = torch.randn(4, 1, 8, 9)
    for path in (folder, folder.parent):
        bundle = load_bundle(path)
        assert torch.equal(bundle.network()(x), network(x))
        assert bundle.signal == describe().signal


def test_no_file_of_a_bundle_is_a_pickle(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["bundle.json", "manifest.json", "model.safetensors"]
    assert "src." not in (folder / "bundle.json").read_text()


def test_what_does_not_match_is_refused_with_a_reason(folder, tmp_path):
    bundle = load_bundle(folder)
    with pytest.raises(BadInput, match="is a sleep_staging bundle, not spike_detection"):
        bundle.require_task("spike_detection")
    with pytest.raises(BadInput, match="holds no bundle"):
        load_bundle(tmp_path)
    edit(folder, schema_version=99)
    with pytest.raises(BadInput, match="schema 99, newer than 1; update neurolit"):
        load_bundle(folder)
    edit(folder, schema_version=1, kind="transformer")
    with pytest.raises(BadInput, match="unknown network kind 'transformer'"):
        load_bundle(folder).network()
    edit(folder, kind="sleep_epoch_cnn", network_args={**ARGS, "width": 16})
    with pytest.raises(BadInput, match="does not fit"):
        load_bundle(folder).network()
    edit(folder, network_args={**ARGS, "depth": 3})
    with pytest.raises(BadInput, match=r"arguments do not fit a sleep_epoch_cnn .*depth"):
        load_bundle(folder).network()
    edit(folder, signal={"rate": 1})
    with pytest.raises(BadInput, match=r"does not describe the network's input"):
        load_bundle(folder)
    edit(folder, surprise=1)
    with pytest.raises(BadInput, match="unknown fields \\(surprise\\)"):
        load_bundle(folder)


def test_preprocessing_of_another_version_is_refused():
    described = describe(stages=[{"stage": "sleep_epochs", "version": 2, "params": {}, "seed": None}])
    described.require_stages({"sleep_epochs": 2, "night_view": 1})
    with pytest.raises(BadInput, match="needs version 2 of the preprocessing sleep_epochs, here it is 3"):
        described.require_stages({"sleep_epochs": 3})
    with pytest.raises(BadInput, match="unknown here"):
        described.require_stages({})


@pytest.mark.parametrize(
    ("task", "module", "stage"),
    [
        ("sleep_staging", "sleep", "sleep_epochs"),
        ("spike_detection", "spikes", "spike_conditioning"),
        ("grid_forecasting", "grids", "grid_index"),
    ],
)
def test_every_predictor_refuses_preprocessing_of_another_version(tmp_path, task, module, stage):
    predict = import_module(f"src.predict.{module}").predict
    old = describe(task=task, stages=[{"stage": stage, "version": 0, "params": {}, "seed": None}])
    old.decision["targets"] = {}
    with pytest.raises(BadInput, match=f"needs version 0 of the preprocessing {stage}, here it is"):
        predict(old, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_weights_are_noticed(folder, damage):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 255
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-20])
    with pytest.raises(BadInput, match="missing or damaged"):
        load_bundle(folder).network()


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": 1}', "\x00\x01"])
def test_a_damaged_description_is_noticed(folder, text):
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BadInput, match=r"damaged"):
        load_bundle(folder)


@pytest.mark.parametrize("kind", [k for k in NETWORKS if k.startswith("sleep") and k != "sleep_sequence"])
def test_every_sleep_network_of_the_table_exists(kind):
    arguments = {"n_channels": 1, "n_freqs": 51, "n_frames": 59, "n_classes": 5}
    assert build_network(kind, arguments).eval()(torch.zeros(2, 1, 51, 59)).shape == (2, 5)
