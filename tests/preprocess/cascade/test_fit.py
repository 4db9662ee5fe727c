from dataclasses import replace

import numpy as np
import pytest

from src.preprocess.cascade import fit as cascade_fit
from src.preprocess.cascade.dense import ensemble_mean, import_tensorflow
from src.preprocess.cascade.fit import draw_stretches, fit_network, gather, start_weights, training_step
from src.preprocess.cascade.ground_truth import Example, prepare
from src.recordings.calcium.ground_truth import Trial
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY

CONFIG = replace(TINY, batch_size=64)


def example(dataset: str, frames: int, seed: int = 0, noise: float = 0.002) -> Example:
    draw = np.random.default_rng(seed)
    counts = draw.poisson(0.2, frames)
    dff = np.convolve(counts, 0.3 * np.exp(-np.arange(12) / 3))[:frames] + noise * draw.standard_normal(frames)
    time = np.arange(frames) / 2
    trial = Trial(dataset, f"neuron_{seed}", 0, dff, time, np.repeat(time, counts))
    return prepare([trial], CONFIG)[0]


def test_short_and_noisy_trials_are_left_out() -> None:
    examples = [example("A", 15), example("A", 16, 1), example("A", 300, 2, noise=1.0), example("A", 40, 3)]
    data = gather(examples, CONFIG, 30.0, 8, 10**6)
    assert data.windows.tolist() == [1, 25]
    with pytest.raises(BadInput, match="quieter and longer than 16"):
        gather(examples[:1], CONFIG, 30.0, 8, 10**6)


def test_datasets_count_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [example("A", 415, 1), example("B", 115, 2)]
    replicas = [min(500, np.ceil(1.2 * (30 / e.base_noise) ** 2)) for e in examples]
    expected = np.array([400, 100]) * replicas
    data = gather(examples, CONFIG, 30.0, 1, 10**6)
    np.testing.assert_allclose(data.share, expected / expected.sum())
    assert data.epoch_windows == int(expected.sum())
    assert gather(examples, CONFIG, 30.0, 1, 77).epoch_windows == 77
    monkeypatch.setattr(cascade_fit, "DATASET_SHARE", 2 * expected.min())
    np.testing.assert_allclose(gather(examples, CONFIG, 30.0, 1, 10**6).share, [0.5, 0.5])


@pytest.mark.parametrize("stretch", [1, 5, 40])
def test_every_window_is_drawn_equally_often(stretch: int) -> None:
    frames = 36
    trial = example("A", frames)
    trial = replace(trial, target=np.arange(frames, dtype=np.float32), noise_profile=np.zeros(frames, np.float32))
    data = gather([trial], CONFIG, 30.0, stretch, 10**6)
    traces, targets, inside = draw_stretches(data, CONFIG, 20_000, np.random.default_rng(0))
    seen = np.bincount(targets[inside > 0].astype(int), minlength=frames)
    assert (seen[:8] == 0).all()
    assert (seen[29:] == 0).all()
    assert seen[8:29].std() < 0.05 * seen[8:29].mean()
    assert inside.mean() == pytest.approx(data.filled, rel=0.02)
    row, column = np.argwhere(inside > 0)[7]
    window = traces[row, column : column + 16]
    frame = int(targets[row, column])
    np.testing.assert_array_equal(window, trial.dff[frame - 8 : frame + 8])


def test_the_gradient_is_that_of_the_windows_one_by_one() -> None:
    """A stretch gives the same gradient as its windows, cut out and shown one by one."""
    tf = import_tensorflow()
    draw = np.random.default_rng(0)
    weights = [tf.constant(array) for array in start_weights(CONFIG, draw)]
    data = gather([example("A", 60)], CONFIG, 10.0, 6, 10**6)
    traces, targets, inside = draw_stretches(data, CONFIG, 3, draw)

    def squared_gradients(*blocks: np.ndarray) -> list[np.ndarray]:
        step = training_step("Adagrad", tuple(array.shape for array in weights), CONFIG.windowsize)
        zeros = [tf.zeros_like(array) for array in weights]
        *_, squares = step(*map(tf.constant, blocks), weights, zeros, zeros, tf.constant([1.0, 1.0]))
        return [array.numpy() for array in squares]

    rows, columns = np.nonzero(inside)
    single = np.stack([traces[row, column : column + 16] for row, column in zip(rows, columns, strict=True)])
    chosen = targets[rows, columns][:, None]
    together = squared_gradients(traces, targets, inside)
    apart = squared_gradients(single, chosen, np.ones_like(chosen))
    for ours, reference in zip(together, apart, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("name", ["Adagrad", "Adam"])
def test_training_learns_and_repeats_itself(name: str) -> None:
    config = replace(CONFIG, optimizer=name)
    # At level 6 the noise leaves most of the spikes to be found; at 15 no network could halve the loss.
    data = gather([example("A", 400, seed) for seed in range(3)], CONFIG, 6.0, 16, 10**6)
    network = fit_network(data, config, 256, [1, 2])
    traces, targets, inside = draw_stretches(data, config, 200, np.random.default_rng(5))
    found = ensemble_mean(traces, [network], config.windowsize)
    assert np.square(found - targets)[inside > 0].mean() < 0.5 * targets[inside > 0].var()
    again = fit_network(data, config, 256, [1, 2])
    for ours, theirs in zip(network, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    unseen = example("B", 200, 9)
    inferred = ensemble_mean(unseen.dff[None], [network], CONFIG.windowsize)[0]
    assert np.corrcoef(inferred, unseen.target[8 : 8 + len(inferred)])[0, 1] > 0.7


def test_weights_start_as_glorot_says() -> None:
    arrays = start_weights(CONFIG, np.random.default_rng(0))
    assert np.abs(arrays[2]).max() <= np.sqrt(6 / (3 * 4 + 3 * 5))
    assert all((bias == 0).all() for bias in arrays[1::2])


def test_other_optimisers_are_refused() -> None:
    data = gather([example("A", 60)], CONFIG, 10.0, 6, 10**6)
    with pytest.raises(BadInput, match="Adagrad or Adam"):
        fit_network(data, replace(CONFIG, optimizer="SGD"), 1, [0])
