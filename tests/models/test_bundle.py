import io
import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from rich.console import Console

import infer
from src.models.bundle import NETWORKS, Bundle, build_network, export_bundle, load_bundle
from src.runs.command import user_errors
from src.signals import BadInput, Origin, SignalSpec
from src.storage.manifest import digest_of
from tests.composed import composed

STEP = {"step": "sleep_epochs", "version": 2, "params": {}, "seed": None}
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
        "steps": [STEP],
        "classes": ["a", "b", "c"],
        "decision": {"temperature": 1.0},
        "metrics": {},
        "split": {},
        "origin": Origin(True, ("cohort",), 3, 24.0, "CC0"),
        "provenance": {},
    }
    return Bundle(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path, network):
    return export_bundle(tmp_path / "run" / "bundle", describe(), network.state_dict())


def edit(folder, **changes):
    """Change a description and sign it anew: what is left is the check of the content."""
    path = folder / "bundle.json"
    plain = {**json.loads(path.read_text()), **changes}
    del plain["sha256"]
    path.write_text(json.dumps({**plain, "sha256": digest_of(plain)}, indent=2) + "\n")


def test_a_bundle_gives_the_same_logits_and_is_found_from_its_run(folder, network):
    x = torch.randn(4, 1, 8, 9)
    for path in (folder, folder.parent):
        bundle = load_bundle(path)
        assert torch.equal(bundle.network()(x), network(x))
        assert bundle.signal == describe().signal
        assert bundle.origin == describe().origin
        assert bundle.record()["origin"]["licence"] == "CC0"


def test_weights_that_are_kept_in_half_precision_come_back_in_single(tmp_path, network):
    halves = {name: value.half() for name, value in network.state_dict().items()}
    loaded = load_bundle(export_bundle(tmp_path / "bundle", describe(), halves)).network()
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    x = torch.randn(4, 1, 8, 9)
    torch.testing.assert_close(loaded(x), network(x), atol=1e-2, rtol=1e-2)
    assert not torch.equal(loaded(x), network(x))


def test_no_file_of_a_bundle_is_a_pickle(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["bundle.json", "manifest.json", "model.safetensors"]
    assert "src." not in (folder / "bundle.json").read_text()


class Own(torch.nn.Linear):
    """A network in a package of the user's own."""


def test_a_network_of_a_package_that_the_user_trusts_is_named_by_its_path(monkeypatch):
    kind = f"{__name__}.Own"
    assert type(build_network(kind, {"in_features": 2, "out_features": 3})) is Own
    with pytest.raises(BadInput, match=r"'tests.models.Absent' cannot be imported .*PYTHONPATH"):
        build_network("tests.models.Absent", {})
    monkeypatch.setenv("NEUROLIT_TRUST", "mylab")
    with pytest.raises(BadInput, match=r"is no network of neurolit; .*if you trust tests: export NEUROLIT_TRUST=tests"):
        build_network(kind, {"in_features": 2, "out_features": 3})


def test_what_does_not_match_is_refused_with_a_reason(folder, tmp_path):
    bundle = load_bundle(folder)
    with pytest.raises(BadInput, match="is a sleep_staging bundle, not spike_detection"):
        bundle.require("spike_detection", {})
    (tmp_path / "empty").mkdir()
    for place, said in (("empty", "holds no bundle; give the"), ("emty", "does not exist; did you mean .*empty")):
        with pytest.raises(BadInput, match=said):
            load_bundle(tmp_path / place)
    with pytest.raises(BadInput, match=r"holds no bundle; choose one of: .*sleep_human"):
        load_bundle(Path(__file__).parents[2] / "pretrained")
    edit(folder, schema_version=99)
    with pytest.raises(BadInput, match="schema 99, newer than 2; update neurolit"):
        load_bundle(folder)
    edit(folder, schema_version=1)
    with pytest.raises(BadInput, match="schema 1, which does not say what it was trained on; train again"):
        load_bundle(folder)
    edit(folder, schema_version=2, kind="transformer")
    with pytest.raises(BadInput, match="'transformer' is no network of neurolit"):
        load_bundle(folder).network()
    edit(folder, kind="sleep_epoch_cnn", network_args={**ARGS, "width": 16})
    with pytest.raises(BadInput, match="does not fit"):
        load_bundle(folder).network()
    edit(folder, network_args={**ARGS, "depth": 3})
    with pytest.raises(BadInput, match=r"describes no sleep_epoch_cnn .*depth"):
        load_bundle(folder).network()
    edit(folder, signal={"rate": 1})
    with pytest.raises(BadInput, match=r"does not describe the network's input"):
        load_bundle(folder)
    edit(folder, surprise=1)
    with pytest.raises(BadInput, match="unknown fields \\(surprise\\)"):
        load_bundle(folder)


def test_preprocessing_of_another_version_is_refused():
    described = describe()
    described.require("sleep_staging", {"sleep_epochs": 2, "night_view": 1})
    with pytest.raises(BadInput, match="needs version 2 of the preprocessing sleep_epochs, here it is 3"):
        described.require("sleep_staging", {"sleep_epochs": 3})
    with pytest.raises(BadInput, match="unknown here"):
        described.require("sleep_staging", {})


@pytest.mark.parametrize(
    ("task", "module", "step"),
    [
        ("sleep_staging", "sleep", "sleep_epochs"),
        ("spike_detection", "spikes", "spike_conditioning"),
        ("grid_forecasting", "grids", "grid_index"),
    ],
)
def test_every_predictor_refuses_preprocessing_of_another_version(tmp_path, task, module, step):
    predict = import_module(f"src.predict.{module}").predict
    decision = {"temperature": 1.0, "targets": {}, "baselines": {}, "threshold": [0.5], "forecast": "model"}
    old = describe(task=task, decision=decision, steps=[{"step": step, "version": 0, "params": {}}])
    with pytest.raises(BadInput, match=f"needs version 0 of the preprocessing {step}, here it is"):
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


WRONG: list[tuple[dict, str]] = [
    ({"decision": {"temperature": 0}}, "decision.temperature is no number above 0"),
    ({"decision": {"temperature": -1.0}}, "decision.temperature is no number above 0"),
    ({"decision": {}}, "decision.temperature is no number above 0"),
    ({"classes": ["a", "b", "c", "d"]}, "names 4 classes for 3 outputs"),
    ({"classes": []}, "field classes is no list of at least one name"),
    ({"task": []}, "field task is no text"),
    ({"kind": 3}, "field kind is no text"),
    ({"steps": []}, "field steps is no list of at least one preprocessing step"),
    ({"steps": [{"step": "sleep_epochs"}]}, "field steps is no list"),
    ({"steps": ["sleep_epochs"]}, "field steps is no list"),
    ({"network_args": []}, "field network_args is no record"),
    ({"metrics": {"test/kappa": "high"}}, "field metrics is no record of numbers"),
    ({"origin": {"recorded": "yes", "cohorts": ["c"], "subjects": 1, "hours": 1}}, "field origin is no description"),
    ({"origin": {"recorded": True}}, "does not describe the network's input or origin"),
    ({"origin": None}, "does not describe the network's input or origin"),
    ({"weights_sha256": 5}, "field weights_sha256 is no checksum"),
]


@pytest.mark.parametrize(("changes", "problem"), WRONG)
def test_a_description_that_contradicts_itself_is_refused_although_its_checksum_holds(folder, changes, problem):
    edit(folder, **changes)
    with pytest.raises(BadInput, match=problem):
        load_bundle(folder)


def test_any_flipped_bit_of_the_description_is_refused(folder):
    path = folder / "bundle.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 7)
        path.write_bytes(content)
        with pytest.raises(BadInput):
            load_bundle(folder)


def test_infer_refuses_what_the_loader_refuses_and_says_what_a_bundle_was_trained_on(folder, tmp_path):
    def said():
        file = io.StringIO()
        console = Console(file=file, width=300)
        words = [f"bundle={folder}", f"input={tmp_path}", f"output_dir={tmp_path / 'out'}"]
        cfg = composed("infer", *words)
        with pytest.raises(SystemExit), user_errors(console):
            infer.predict_with_bundle(cfg, console)
        return file.getvalue()

    assert "trained on recordings: cohort (3 subjects, 24 h; licence of the data: CC0)" in said()
    for changes, problem in (WRONG[1], WRONG[5]):
        original = (folder / "bundle.json").read_text()
        edit(folder, **changes)
        assert problem in said()
        (folder / "bundle.json").write_text(original)


def test_every_prediction_says_what_its_network_was_trained_on(tmp_path):
    (tmp_path / "night.edf").write_bytes(b"x")
    describe().write_manifest(tmp_path, {"night": tmp_path / "night.edf"}, {"epochs": 3})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["task"] == "sleep_staging"
    assert manifest["bundle"]["origin"]["cohorts"] == ["cohort"]
    assert manifest["inputs"]["night"]["name"] == "night.edf"
    assert manifest["epochs"] == 3


def test_settings_that_are_not_there_are_named():
    with pytest.raises(BadInput, match="does not say how sleep_epochs is done"):
        describe().settings(lambda params: params["absent"])
