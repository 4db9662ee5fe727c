import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.datamodules.sleep import NightEpochs
from src.datamodules.sleep_sequences import (
    SPAN_VIEWS,
    NightDataset,
    SleepSequenceData,
    SpanOptions,
    WindowDataset,
    draw_windows,
)
from src.signals import UNSCORED, BadInput, SignalSpec

EPOCHS = {"channels": ["EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal"], "features": {"kind": "bandpower"}}


def night(name="a", n_epochs=12):
    levels = torch.arange(n_epochs, dtype=torch.float16)[:, None, None, None].expand(-1, 1, 2, 1)
    signal = SignalSpec(("EEG",), 0.0, 30.0, "dB", ("channel", "frequency", "time"), (1, 2, 1))
    return NightEpochs(name, name, levels, torch.arange(n_epochs) % 3, signal)


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
        "execution": {"cache_dir": str(tmp_path / "cache"), "workers": 1, "seed": 0},
    }
    return SleepSequenceData(**{**arguments, **changed})


def test_windows_are_consecutive_epochs_and_a_short_night_is_filled_up():
    dataset = WindowDataset([night(n_epochs=12), night("b", 3)], 5)
    assert len(dataset) == 4
    levels, stages, recording = dataset[1]
    first = int(levels[0, 0, 0, 0])
    assert levels[:, 0, 0, 0].tolist() == list(range(first, first + 5))
    assert stages.tolist() == [epoch % 3 for epoch in range(first, first + 5)]
    levels, stages, recording = dataset[3]
    assert stages.tolist() == [0, 1, 2, UNSCORED, UNSCORED]
    assert levels[3:].isnan().all()
    assert recording == 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 20))
def test_windows_stay_inside_nights_which_they_would_cover_once(lengths, size):
    dataset = WindowDataset([night(str(i), n) for i, n in enumerate(lengths)], size)
    owners = [int(dataset[i][2]) for i in range(len(dataset))]
    assert [owners.count(i) for i in range(len(lengths))] == [-(-n // size) for n in lengths]
    for i, owner in enumerate(owners):
        _, stages, _ = dataset[i]
        assert (stages != UNSCORED).sum() == min(size, lengths[owner])


def test_where_in_the_night_a_window_begins_is_even_and_follows_the_global_generator():
    dataset = WindowDataset([night(n_epochs=40)] * 50, 10)
    torch.manual_seed(0)
    starts = [int(dataset[i][0][0, 0, 0, 0]) for _ in range(20) for i in range(len(dataset))]
    counts = np.bincount(starts, minlength=31)
    assert counts.max() < 2 * counts.mean()
    torch.manual_seed(0)
    assert starts[:5] == [int(dataset[i][0][0, 0, 0, 0]) for i in range(5)]


def test_windows_to_be_learned_by_heart_stay_where_they_are():
    dataset = WindowDataset([night(n_epochs=40)], 10)
    dataset.same = True
    assert [int(dataset[i][0][0, 0, 0, 0]) for i in range(4)] == [0, 10, 20, 30]


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
    for name, value in first.statistics().items():
        np.testing.assert_array_equal(value, second.statistics()[name])


def test_blocks_of_a_recording_are_apart(tmp_path):
    write_cohort(tmp_path / "nights", subjects=1, n_epochs=60)
    module = data(tmp_path, split={"method": "blocks", "val": 0.2, "test": 0.3, "gap_epochs": 5, "seed": 0})
    module.setup("fit")
    lengths = {part: len(dataset.stages) for part, dataset in module.datasets.items()}
    assert lengths == {"train": 25, "val": 10, "test": 15}
    assert module.split.method.startswith("blocks")
    assert module.origin().subjects == 1


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


PLAIN: dict = {"jitter_db": 0.0, "tilt_db": 0.0, "jitter_scatter": 0.0, "one_channel": 0.0, "lost_channel": 0.0}


def recording(n_epochs=300):
    rng = np.random.default_rng(0)
    stages = np.r_[np.zeros(60, int), np.full(n_epochs - 60, 2)]
    levels = rng.normal(size=(n_epochs, 3, 5, 1)) + 20 * (stages == 0)[:, None, None, None]
    return levels.astype(np.float32), stages


def test_windows_are_relative_to_their_span_and_do_not_see_the_gain():
    levels, stages = recording()
    options = SpanOptions(window_epochs=20, windows=3, views=SPAN_VIEWS, **PLAIN)
    for seed in range(5):
        seen, known = draw_windows(np.random.default_rng(seed), levels, stages, options)
        louder, same = draw_windows(np.random.default_rng(seed), levels + 14, stages, options)
        assert seen.shape == (3, 20, 3, 20, 1)
        assert known.shape == (3, 20)
        assert np.array_equal(known, same)
        np.testing.assert_allclose(seen, louder, atol=1e-3)


@pytest.mark.parametrize("views", [("relative",), ("night", "relative"), ("relative", "night", "high"), ("absolute",)])
def test_windows_of_spans_have_views_that_are_relative_to_them(tmp_path, views):
    with pytest.raises(BadInput, match="the first two or more of relative, night, low, high"):
        data(tmp_path, augment={"spans": {}}, views=views)


def test_spans_differ_in_length_and_wake_is_repeated_around_some():
    levels, stages = recording()
    options = SpanOptions(window_epochs=400, windows=1, share=1.0, wake_share=1.0, wake_epochs=(100, 300), **PLAIN)
    shares = []
    for seed in range(20):
        _, known = draw_windows(np.random.default_rng(seed), levels, stages, options)
        shares.append((known == 0).sum())
    assert max(shares) > 60  # more wake than the night has
    assert len(set(shares)) > 10


def test_a_window_loses_channels_or_keeps_one_in_the_first_place():
    levels, stages = recording()
    plain: dict = {**PLAIN, "windows": 8, "window_epochs": 10}
    one, _ = draw_windows(
        np.random.default_rng(0), levels, stages, SpanOptions(**{**plain, "one_channel": 1.0, "with_eog": 0.0})
    )
    assert np.isfinite(one[:, :, 0]).any()
    assert np.isnan(one[:, :, 1:]).all()
    lost, _ = draw_windows(np.random.default_rng(0), levels, stages, SpanOptions(**{**plain, "lost_channel": 1.0}))
    assert (np.isnan(lost).all(axis=(1, 3, 4)).sum(axis=1) == 1).all()


@pytest.mark.parametrize("index", [0, 2])
def test_a_dataset_draws_anew_unless_it_has_to_repeat(index):
    dataset = WindowDataset([night(n_epochs=120), night("b", 90)], 30, SpanOptions(window_epochs=30))
    first, again = dataset[index], dataset[index]
    assert first[0].shape[0] == len(first[1]) == 30
    assert not first[0].nan_to_num().equal(again[0].nan_to_num())
    dataset.same = True
    assert dataset[index][0].nan_to_num().equal(dataset[index][0].nan_to_num())
