from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from src.preprocess.cascade.ground_truth import Example, prepare, smooth_counts, with_noise
from src.preprocess.cascade.output import noise_levels
from src.preprocess.cascade.package import PackageConfig
from src.recordings.calcium.ground_truth import find_datasets, read_ground_truth, read_neuron
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, recorded_trial, write_neuron


def prepared(tmp_path: Path, trial: dict[str, np.ndarray], config: PackageConfig) -> Example:
    (example,) = prepare(read_neuron(write_neuron(tmp_path / "DS01-x" / "cell_mini.mat", [trial])), config)
    return example


def test_what_was_written_is_read(tmp_path: Path) -> None:
    first, second = recorded_trial(seed=1), recorded_trial(seconds=30, seed=2)
    second["fluo_time"][0, 5] = np.nan
    second["events_AP"] = np.append(second["events_AP"], np.nan)[:, None]
    second["fluo_mean"] = np.append(second["fluo_mean"], [[9.0, 9.0]], axis=1)
    path = write_neuron(tmp_path / "DS01-x-m-V1" / "cell_mini.mat", [first, {"template": np.zeros(3)}, second])
    one, two = read_neuron(path)
    assert (one.dataset, one.neuron, one.number, two.number) == ("DS01-x-m-V1", "cell_mini", 0, 2)
    assert one.fs_hz == pytest.approx(10)
    np.testing.assert_allclose(one.spikes_s, first["events_AP"][:, 0] / 1e4)
    assert len(two.dff) == 299
    assert len(two.spikes_s) == 40


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file, cut off", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "cell_mini.mat").write_bytes(content)
    with pytest.raises(BadInput, match="no ground truth file"):
        read_neuron(path)
    savemat(path, {"other": np.zeros(3)})
    with pytest.raises(BadInput, match="no ground truth file"):
        read_neuron(path)


def test_old_numbers_find_the_renumbered_datasets(tmp_path: Path) -> None:
    for name in ("DS09-A-m-V1", "DS10-B-m-V1", "DS11-B-m-V1"):
        (tmp_path / name).mkdir()
    new = find_datasets(tmp_path, ["DS09-A-m-V1", "DS10-B-m-V1", "DS12-C-m-V1"])
    assert [path and path.name for path in new.values()] == ["DS09-A-m-V1", "DS10-B-m-V1", None]
    old = find_datasets(tmp_path, ["DS08-A-m-V1", "DS09-B-m-V1", "DS10-B-m-V1"])
    assert [path and path.name for path in old.values()] == ["DS09-A-m-V1", "DS10-B-m-V1", "DS11-B-m-V1"]


def test_a_missing_or_empty_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="DS01-x"):
        read_ground_truth(tmp_path, ["DS01-x"])
    (tmp_path / "DS01-x").mkdir()
    with pytest.raises(BadInput, match=r"no \*_mini.mat"):
        read_ground_truth(tmp_path, ["DS01-x"])


def test_resampling_keeps_every_spike_in_its_frame(tmp_path: Path) -> None:
    example = prepared(tmp_path, recorded_trial(seconds=100), TINY)
    assert len(example.dff) == len(example.counts) == 200
    assert example.counts.sum() == 40
    # A frame of the resampled trace is centred on every fifth frame of the recording.
    centres = 0.05 + np.arange(200) / 2
    spikes = np.sort(np.random.default_rng(0).uniform(0, 100, 40))
    expected = np.bincount(np.abs(spikes[:, None] - centres).argmin(axis=1), minlength=200)
    np.testing.assert_array_equal(example.counts, expected)


def test_a_rate_within_five_percent_is_kept(tmp_path: Path) -> None:
    example = prepared(tmp_path, recorded_trial(fs_hz=10), replace(TINY, sampling_rate_hz=10.4))
    assert len(example.dff) == 600


@pytest.mark.parametrize("level", [2.0, 5.0, 12.0])
def test_noise_is_added_up_to_the_level(tmp_path: Path, level: float) -> None:
    config = replace(TINY, sampling_rate_hz=10.0)
    example = prepared(tmp_path, recorded_trial(seconds=600, noise=0.01), config)
    dff = with_noise(example, level, config, np.random.default_rng(3))
    assert dff is not None
    assert noise_levels(dff[None], 10.0)[0] == pytest.approx(level, rel=0.05)


def test_a_recording_noisier_than_the_level_is_left_out(tmp_path: Path) -> None:
    example = prepared(tmp_path, recorded_trial(noise=0.2), TINY)
    assert example.base_noise > 4
    assert with_noise(example, 2.0, TINY, np.random.default_rng(0)) is None


@pytest.mark.parametrize("causal", [False, True])
def test_smoothing_keeps_the_number_of_spikes(causal: bool) -> None:
    config = replace(TINY, causal_kernel=causal, sampling_rate_hz=10.0, smoothing_s=0.2)
    counts = np.zeros(400)
    counts[[200, 230]] = [1, 2]
    smooth = smooth_counts(counts, config)
    assert smooth.sum() == pytest.approx(3, rel=1e-3)
    before, after = smooth[:200].sum(), smooth[201:220].sum()
    assert (before < 0.1 * after) if causal else (before == pytest.approx(after, rel=0.01))


def test_the_real_ground_truth_is_as_described(shared_data: Path) -> None:
    trials = read_ground_truth(shared_data / "cascade_ground_truth", ["DS09-GCaMP6f-m-V1", "DS16-GCaMP6s-m-V1"])
    assert len({(trial.dataset, trial.neuron) for trial in trials}) == 9
    assert len(trials) == 10
    assert sum(len(trial.spikes_s) for trial in trials if trial.dataset.startswith("DS16")) == 6524
    assert {round(trial.fs_hz, 1) for trial in trials if trial.dataset.startswith("DS09")} == {60.1}


def test_short_trials_are_joined_only_where_all_are_short(tmp_path: Path) -> None:
    short = [recorded_trial(seconds=5, seed=seed) for seed in range(4)]
    one = write_neuron(tmp_path / "DS01-a" / "short_mini.mat", short)
    two = write_neuron(tmp_path / "DS01-a" / "mixed_mini.mat", [*short, recorded_trial(seconds=20)])
    examples = prepare([*read_neuron(one), *read_neuron(two)], TINY)
    assert [len(example.dff) for example in examples] == [40, 10, 10, 10, 10, 40]
    assert examples[0].trial.number == -1
    np.testing.assert_array_equal(
        examples[0].target[10:20], prepare([read_neuron(two)[1], read_neuron(two)[4]], TINY)[0].target
    )
