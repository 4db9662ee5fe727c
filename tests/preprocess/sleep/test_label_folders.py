"""The original's folders: labels from folders, subjects from names, or nothing."""

import numpy as np
import pytest

from src.preprocess.sleep.epochs import EpochSettings, read_epochs
from src.preprocess.sleep.features import FeatureSettings
from src.preprocess.sleep.label_folders import find_label_folders
from src.preprocess.sleep.prepare import prepare_nights
from src.signals import BadInput

SETTINGS = EpochSettings(features=FeatureSettings(window_s=1.0, hop_s=0.5, min_hz=0.0, max_hz=50.0))
PATTERN = r"^s(\d+)_"


def epoch(root, label, name, value=1e-6, shape=(51, 59, 1)):
    path = root / label / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full(shape, value))
    return path


def prepared(root, cache, settings=SETTINGS):
    source = {"kind": "label_folders", "root": root, "subject_pattern": PATTERN}
    return prepare_nights(source, settings, cache=cache, workers=1)


def test_labels_come_from_folders_and_subjects_from_names(tmp_path):
    root = tmp_path / "EEG_Data"
    for label, name, value in (("0", "s01_000", 1e-6), ("2", "s01_001", 1e-4), ("4", "s02_000", 1e-8)):
        epoch(root, label, name, value)
    artifacts, summary = prepared(root, tmp_path / "cache")
    assert not summary.failures
    assert [a.subject_id for a in artifacts] == ["01", "02"]
    first = read_epochs(artifacts[0].path)
    np.testing.assert_array_equal(first.stages, [0, 2])
    assert first.features.shape == (2, 1, 51, 59)
    np.testing.assert_allclose(first.features[:, 0, 0, 0], [-60.0, -40.0], atol=0.05)
    assert artifacts[0].facts["counts"]["N2"] == 1


def test_stage_names_serve_as_labels(tmp_path):
    epoch(tmp_path / "d", "N3", "s01_0")
    epoch(tmp_path / "d", "REM", "s01_1")
    artifacts, _ = prepared(tmp_path / "d", tmp_path / "cache")
    np.testing.assert_array_equal(read_epochs(artifacts[0].path).stages, [3, 4])


def test_without_a_pattern_the_folder_is_refused(tmp_path):
    epoch(tmp_path, "0", "s01_000")
    with pytest.raises(BadInput, match="names no subjects, so that no split by subject is possible; give subject_patt"):
        find_label_folders(tmp_path)


def test_an_empty_or_absent_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"holds no <label>/\*\.npy"):
        find_label_folders(tmp_path, PATTERN)
    with pytest.raises(BadInput, match="does not exist"):
        find_label_folders(tmp_path / "nowhere", PATTERN)


def reason(root, tmp_path, settings=SETTINGS):
    artifacts, summary = prepared(root, tmp_path / "cache", settings)
    assert not artifacts
    return summary.failures[0].reason


def test_bad_arrays_are_named(tmp_path):
    path = epoch(tmp_path / "d", "0", "s01_000", shape=(10, 10, 1))
    assert f"{path}: has shape (10, 10, 1), the features call for (51, 59)" in reason(tmp_path / "d", tmp_path)
    epoch(tmp_path / "d", "0", "s01_000", value=-1.0)
    assert "holds no power (negative or not finite)" in reason(tmp_path / "d", tmp_path)
    path.write_bytes(b"no array")
    assert f"{path}: cannot be read as .npy" in reason(tmp_path / "d", tmp_path)


def test_unknown_labels_are_listed(tmp_path):
    epoch(tmp_path / "d", "7", "s01_000")
    epoch(tmp_path / "d", "dreaming", "s01_001")
    assert "has unknown label folders: 7, dreaming" in reason(tmp_path / "d", tmp_path)
