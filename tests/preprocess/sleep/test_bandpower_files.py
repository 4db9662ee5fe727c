import tracemalloc
import zipfile

import numpy as np
import pytest

from src.preprocess.sleep.bandpower_files import (
    find_bandpower,
    read_bandpower_mouse,
    read_bandpower_night,
)
from src.preprocess.sleep.epochs import read_epochs
from src.preprocess.sleep.prepare import SLEEP_BANDPOWER
from src.signals import BadInput
from src.storage.step import ensure


def write_night(path, onsets=(0.0, 30.0, 90.0), labels=(0, 2, -100), **changed):
    features = np.random.default_rng(0).normal(size=(len(onsets), 3, 10)).astype(np.float32)
    arrays = {
        "features": features,
        "labels": None if labels is None else np.array(labels),
        "onsets_sec": np.array(onsets),
        **changed,
    }
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_left_out_epochs_are_put_back_as_unusable(tmp_path):
    epochs = read_bandpower_night(write_night(tmp_path / "07__1.npz"))
    assert epochs.stages.tolist() == [0, 2, -1, -1]
    assert epochs.usable.tolist() == [True, True, False, True]
    assert epochs.onset_s.tolist() == [0, 30, 60, 90]
    features = np.load(tmp_path / "07__1.npz")["features"]
    np.testing.assert_allclose(epochs.features[0, 1, :, 0], features[0, 1, :5] * 10 / np.log(10), rtol=1e-6)


def test_a_night_without_labels_is_a_night_to_be_scored(tmp_path):
    assert (read_bandpower_night(write_night(tmp_path / "night.npz", labels=None)).stages == -1).all()


def test_both_nights_of_a_person_belong_to_one_subject(tmp_path):
    for name in ("07__1", "07__2", "08__1"):
        write_night(tmp_path / f"{name}.npz")
    assert [(n, s) for n, s, _ in find_bandpower(tmp_path, "bandpower")] == [
        ("07__1", "07"), ("07__2", "07"), ("08__1", "08"),
    ]  # fmt: skip


def test_the_stage_writes_what_training_reads(tmp_path):
    path = write_night(tmp_path / "07__1.npz")
    params = {"kind": "bandpower", "recording": "07__1"}
    artifact = ensure(SLEEP_BANDPOWER, {"night": path}, params, label="07__1", cache=tmp_path / "cache")
    assert read_epochs(artifact.path).stages.tolist() == [0, 2, -1, -1]
    assert artifact.manifest["facts"]["counts"]["N2"] == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"features": np.zeros((3, 2, 10))},
        {"labels": np.array([0, 1])},
        {"labels": np.array([0, 1, 7])},
        {"onsets_sec": np.array([0.0, 30.0, 30.0])},
        {"onsets_sec": np.array([0.0, 31.0, 60.0])},
        {"features": None},
    ],
)
def test_another_file_is_refused(tmp_path, changed):
    with pytest.raises(BadInput):
        read_bandpower_night(write_night(tmp_path / "x.npz", **changed))


def test_rubbish_and_empty_folders_are_refused(tmp_path):
    (tmp_path / "rubbish.npz").write_bytes(b"rubbish")
    with pytest.raises(BadInput, match="cannot be read"):
        read_bandpower_night(tmp_path / "rubbish.npz")
    with pytest.raises(BadInput, match="holds no"):
        find_bandpower(tmp_path / "empty", "bandpower")


def test_the_real_nights_hold_the_published_counts(shared_data):
    nights = find_bandpower(shared_data / "sleep_edfx_bandpower", "bandpower")
    assert len(nights) == 84
    assert len({subject for _, subject, _ in nights}) == 42
    stages = np.concatenate([read_bandpower_night(path).stages for _, _, path in nights])
    assert [int((stages == s).sum()) for s in (0, 1, 2, 3, 4, -1)] == [32955, 11513, 37659, 7039, 13562, 147]


def test_the_mouse_is_two_days_of_four_seconds(shared_data):
    folder = shared_data / "sleep_mouse_bandpower"
    assert [name for name, _, _ in find_bandpower(folder, "mouse_bandpower")] == [
        "sampleData_baseline", "sampleData_recovery",
    ]  # fmt: skip
    days = [read_bandpower_mouse(folder / "sampleData.npz", mode) for mode in (1, 2)]
    stages = np.concatenate([day.stages for day in days])
    assert [int((stages == s).sum()) for s in range(3)] == [20939, 13486, 2007]
    for day in days:
        assert np.unique(np.diff(day.onset_s)).tolist() == [4.0]
        emg, delta = day.features[:, 0, 5, 0], day.features[:, 0, 0, 0]
        assert np.nanmean(emg[day.stages == 0]) > np.nanmean(emg[day.stages == 1])
        assert np.nanmean(delta[day.stages == 1]) > np.nanmean(delta[day.stages == 0])
    with pytest.raises(BadInput, match="no epochs of mode"):
        read_bandpower_mouse(folder / "sampleData.npz", 3)


def test_what_a_file_would_take_is_known_before_it_is_unpacked(tmp_path):
    """Zeros pack a thousandfold: this file of 70 kB would take 70 MB."""
    path = tmp_path / "07__1.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("features.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (70, 1000, 250)})
        for _ in range(70):
            member.write(bytes(1_000_000))
    with zipfile.ZipFile(path, "a") as archive, archive.open("onsets_sec.npy", "w") as member:
        np.lib.format.write_array(member, np.arange(70.0))
    tracemalloc.start()
    with pytest.raises(BadInput, match="unpacks to 70 MB, far more than band powers"):
        read_bandpower_night(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("onsets", [(0.0, 30.0, 3e9), (0.0, 30.0, np.nan), (-1e300, 0.0, 1e300)])
def test_onsets_further_apart_than_any_recording_are_refused(tmp_path, onsets):
    with pytest.raises(BadInput, match="onsets further apart than 14 days"):
        read_bandpower_night(write_night(tmp_path / "07__1.npz", onsets=onsets))


def test_arrays_that_are_not_needed_are_not_read(tmp_path):
    path = write_night(tmp_path / "07__1.npz", extra=np.array([None]))
    assert read_bandpower_night(path).stages.tolist() == [0, 2, -1, -1]
