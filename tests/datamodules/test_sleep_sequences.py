import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.datamodules.sleep import NightEpochs
from src.datamodules.sleep_sequences import NightDataset, RandomWindows, SleepSequenceData, WindowDataset
from src.signals import UNSCORED, BadInput

EPOCHS = {"channels": ["EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal"], "features": {"kind": "bandpower"}}


def night(name="a", n_epochs=12):
    levels = torch.arange(n_epochs, dtype=torch.float16)[:, None, None, None].expand(-1, 1, 2, 1)
    return NightEpochs(name, name, levels, torch.arange(n_epochs) % 3)


def write_cohort(folder, subjects=6, n_epochs=25):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for subject in range(subjects):
        labels = rng.integers(0, 5, n_epochs)
        labels[3] = -100
        features = rng.normal(size=(n_epochs, 3, 10)).astype(np.float32) + subject
        np.savez(
            folder / f"{subject:02d}__1.npz", features=features, labels=labels, onsets_sec=30.0 * np.arange(n_epochs)
        )
    return folder


def data(tmp_path, **changed):
    arguments = {
        "source": {"kind": "bandpower", "root": str(tmp_path / "nights")},
        "epochs": EPOCHS,
        "split": {"method": "fraction", "val": 0.2, "test": 0.2, "seed": 0},
        "augment": {},
        "window_epochs": 10,
        "views": ["absolute", "night"],
        "batch_size": 4,
        "cache_dir": str(tmp_path / "cache"),
        "workers": 1,
        "seed": 0,
    }
    return SleepSequenceData(**{**arguments, **changed})


def test_windows_are_consecutive_epochs_and_a_short_night_is_filled_up():
    dataset = WindowDataset([night(n_epochs=12), night("b", 3)], 5)
    levels, stages, recording = dataset[[(0, 4), (1, 0)]]
    assert levels[0, :, 0, 0, 0].tolist() == [4, 5, 6, 7, 8]
    assert stages.tolist() == [[1, 2, 0, 1, 2], [0, 1, 2, UNSCORED, UNSCORED]]
    assert levels[1, 3:].isnan().all()
    assert recording.tolist() == [0, 1]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 20), st.integers(0, 3))
def test_windows_stay_inside_nights_and_repeat_with_seed_and_epoch(lengths, size, epoch):
    sampler = RandomWindows(lengths, size, 3, seed=1)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert batches == list(sampler)
    assert len(batches) == len(sampler)
    for place, first in (window for batch in batches for window in batch):
        assert 0 <= first <= max(0, lengths[place] - size)


def test_two_processes_share_the_windows_of_one():
    whole = list(RandomWindows([50, 70], 10, 4, seed=1))
    parts = [list(RandomWindows([50, 70], 10, 4, seed=1, rank=r, world_size=2)) for r in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch[0::2] == first
        assert batch[1::2] == second


def test_where_in_the_night_a_window_begins_is_even():
    starts = []
    sampler = RandomWindows([40] * 50, 10, 5, seed=0)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        starts += [first for batch in sampler for _, first in batch]
    counts = np.bincount(starts, minlength=31)
    assert counts.max() < 2 * counts.mean()


def test_nights_become_windows_and_whole_nights(tmp_path):
    write_cohort(tmp_path / "nights")
    module = data(tmp_path)
    module.setup("fit")
    assert module.signal.shape == (10, 3, 10, 1)
    assert module.signal.axes == ("epoch", "channel", "frequency", "time")
    levels, stages, _ = next(iter(module.train_dataloader()))
    assert levels.shape == (4, 10, 3, 10, 1)
    assert stages.shape == (4, 10)
    ((levels, stages, recording),) = list(module.test_dataloader())
    assert levels.shape == (25, 3, 10, 1)
    assert stages[3] == UNSCORED
    assert recording.eq(0).all()
    assert module.summary()["test"]["epochs"] == 24
    assert [step["step"] for step in module.steps()] == ["sleep_epochs", "night_view"]


def test_other_people_change_nothing_that_is_fitted(tmp_path):
    write_cohort(tmp_path / "nights")
    first = data(tmp_path)
    first.setup("fit")
    for subject in first.split.subjects("test"):
        path = tmp_path / "nights" / f"{subject}__1.npz"
        arrays = dict(np.load(path))
        np.savez(path, **{**arrays, "features": arrays["features"] * 5 + 3, "labels": arrays["labels"][::-1]})
    second = data(tmp_path)
    second.setup("fit")
    for name, value in first.training_statistics().items():
        np.testing.assert_array_equal(value, second.training_statistics()[name])


def test_blocks_of_a_recording_are_apart(tmp_path):
    write_cohort(tmp_path / "nights", subjects=1, n_epochs=60)
    module = data(tmp_path, split={"method": "blocks", "val": 0.2, "test": 0.3, "gap_epochs": 5, "seed": 0})
    module.setup("fit")
    lengths = {part: len(nights.stages) for part, nights in module.nights.items()}
    assert lengths == {"train": 25, "val": 10, "test": 15}
    assert module.split.method.startswith("blocks")


def test_recordings_of_two_layouts_are_refused(tmp_path, monkeypatch):
    write_cohort(tmp_path / "nights")
    module = data(tmp_path)
    real = module._load
    nights = iter([night()])
    monkeypatch.setattr(module, "_load", lambda artifact: next(nights, None) or real(artifact))
    with pytest.raises(BadInput, match="different layout"):
        module.setup("fit")


def test_a_night_is_given_whole_with_its_position():
    dataset = NightDataset([night(), night("b", 3)])
    levels, stages, position = dataset[1]
    assert len(levels) == len(stages) == 3
    assert position.tolist() == [1, 1, 1]
    assert dataset.recordings == ["a", "b"]
