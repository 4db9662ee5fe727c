from dataclasses import replace

import numpy as np
import pytest

from benchmarks.sleep_folds import collect, main
from src.models.bundle import export_bundle, load_bundle
from src.runs.folder import write_record
from src.signals import BadInput
from tests.conftest import REPOSITORY


def write_fold(folder, number, recordings):
    path = folder / str(number)
    path.mkdir(parents=True)
    rows = [{"recording": name, "epochs": int(np.sum(c)), "confusion": c} for name, c in recordings.items()]
    write_record(path / "results.json", {"metrics": {}, "rows": [*rows, {"recording": "mean"}]})
    write_record(path / "run.json", {"started": f"2024-01-0{number + 1}"})
    methods = (f"fold({number} of 2, val=0.1)", f"file(scaffold 7 of 8.json, fold {number} of 2, val=4)")
    bundle = load_bundle(REPOSITORY / "pretrained" / "sleep_human")
    arguments = {**bundle.network_args, "n_classes": 2}
    described = replace(bundle, classes=["a", "b"], network_args=arguments, split={"method": methods[number]})
    export_bundle(path / "bundle", described, {})


def test_folds_are_averaged_and_their_recordings_pooled(tmp_path, capsys):
    write_fold(tmp_path, 0, {"x": [[5, 0], [0, 5]], "y": [[5, 5], [0, 10]]})
    write_fold(tmp_path, 1, {"z": [[4, 6], [6, 4]]})
    rows = {row["fold"]: row for row in collect(tmp_path)}
    assert rows["fold 0, 2 nights"]["acc"] == pytest.approx(25 / 30)
    assert rows["mean of folds"]["acc"] == pytest.approx((25 / 30 + 0.4) / 2)
    pooled = next(row for name, row in rows.items() if name.startswith("pooled"))
    assert pooled["acc"] == pytest.approx(33 / 50)
    assert pooled["fold"] == "pooled, 3 nights"
    assert (rows["epochs of a stage"]["a"], rows["epochs of a stage"]["b"]) == (25, 25)
    assert main([str(tmp_path), "--markdown"]) == 0
    assert "| fold 1, z |" in capsys.readouterr().out


def test_a_recording_tested_twice_is_no_cross_validation(tmp_path):
    write_fold(tmp_path, 0, {"x": [[5, 0], [0, 5]]})
    write_fold(tmp_path, 1, {"x": [[4, 6], [6, 4]]})
    with pytest.raises(BadInput, match="tests x"):
        collect(tmp_path)
    assert main([str(tmp_path / "empty")]) == 2


@pytest.mark.parametrize("name", ["results.json", "run.json", "bundle/bundle.json"])
def test_a_changed_digit_in_a_file_of_results_is_refused(tmp_path, name):
    write_fold(tmp_path, 0, {"x": [[5, 0], [0, 5]]})
    file = tmp_path / "0" / name
    file.write_text(file.read_text().replace("0", "1", 1))
    with pytest.raises(BadInput, match=name):
        collect(tmp_path)
