import json

import numpy as np
import pytest

from src.runs.sleep_folds import collect, main
from src.signals import BadInput


def write_fold(folder, number, recordings):
    path = folder / str(number)
    (path / "bundle").mkdir(parents=True)
    rows = [{"recording": name, "epochs": int(np.sum(c)), "confusion": c} for name, c in recordings.items()]
    (path / "results.json").write_text(json.dumps({"metrics": {}, "rows": [*rows, {"recording": "mean"}]}))
    (path / "run.json").write_text(json.dumps({"started": f"2024-01-0{number + 1}"}))
    methods = (f"fold({number} of 2, val=0.1)", f"file(scaffold 7 of 8.json, fold {number} of 2, val=4)")
    described = {"classes": ["a", "b"], "split": {"method": methods[number]}}
    (path / "bundle" / "bundle.json").write_text(json.dumps(described))


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
