import json

from src.predict.manifest import write_prediction_manifest
from tests.models.test_bundle import describe


def test_every_prediction_says_what_its_network_was_trained_on(tmp_path):
    (tmp_path / "night.edf").write_bytes(b"x")
    write_prediction_manifest(tmp_path, describe(), {"night": tmp_path / "night.edf"}, {"epochs": 3})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["task"] == "sleep_staging"
    assert manifest["bundle"]["origin"]["cohorts"] == ["cohort"]
    assert manifest["inputs"]["night"]["name"] == "night.edf"
    assert manifest["epochs"] == 3
