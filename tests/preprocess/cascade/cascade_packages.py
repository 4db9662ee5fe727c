"""Tiny CASCADE packages with random weights, their networks window by window in plain NumPy, tiny ground truth."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from scipy.io import savemat

from src.preprocess.cascade import keras_file
from src.preprocess.cascade.package import CONFIG_FILE, Network, PackageConfig, kernel_shapes

Vintage = Literal["ours", "keras2", "keras3", "vars"]

TINY = PackageConfig(
    model_name="Tiny_2Hz",
    sampling_rate_hz=2.0,
    noise_levels=(2, 4),
    smoothing_s=0.5,
    causal_kernel=False,
    windowsize=16,
    before_frac=0.5,
    filter_sizes=(3, 3, 2),
    filter_numbers=(4, 5, 6),
    dense_expansion=3,
    training_datasets=("DS00-simulated",),
    loss_function="mean_squared_error",
    optimizer="Adagrad",
    nr_of_epochs=1,
    ensemble_size=2,
    batch_size=8,
)


def random_network(config: PackageConfig, seed: int) -> Network:
    draw = np.random.default_rng(seed)
    drawn = []
    for shape in kernel_shapes(config):
        drawn += [draw.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), draw.normal(0.05, 0.1, shape[-1])]
    return [array.astype(np.float32) for array in drawn]


def write_package(
    models_dir: Path, config: PackageConfig = TINY, *, vintage: Vintage = "keras2", first_number: int = 0
) -> Path:
    """Write ``models_dir/<model name>`` in the layout of one generation of Keras; ``ours`` Keras itself can load."""
    folder = models_dir / config.model_name
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(config.to_yaml())
    for level in config.noise_levels:
        for member in range(config.ensemble_size):
            path = folder / f"Model_NoiseLevel_{level}_Ensemble_{member}.h5"
            network = random_network(config, 100 * level + member)
            if vintage == "ours":
                keras_file.write_network(path, network, config)
            else:
                write_network(path, network, vintage, first_number)
    return folder


def write_network(path: Path, network: Network, vintage: Vintage, first_number: int = 0) -> None:
    convolutions = [f"conv1d_{first_number + i}" for i in range(3)]
    dense = [f"dense_{first_number + i}" for i in range(2)]
    if first_number == 0:
        convolutions[0], dense[0] = "conv1d", "dense"
    with h5py.File(path, "w") as file:
        for name, (kernel, bias) in zip(
            [*convolutions, *dense], zip(network[::2], network[1::2], strict=True), strict=True
        ):
            if vintage == "vars":
                file[f"layers/{name}/vars/0"], file[f"layers/{name}/vars/1"] = kernel, bias
            else:
                colon = ":0" if vintage == "keras2" else ""
                file[f"model_weights/{name}/{name}/kernel{colon}"] = kernel
                file[f"model_weights/{name}/{name}/bias{colon}"] = bias
        file["optimizer_weights/training/Adagrad/kernel:0"] = np.zeros((3, 1, 4), dtype=np.float32)


def window_by_window(dff: np.ndarray, networks: list[Network], config: PackageConfig) -> np.ndarray:
    """``(neuron, window)`` float64: every window cut out and sent through every network by itself."""
    windows = dff.shape[1] - config.windowsize + 1
    out = np.zeros((dff.shape[0], windows))
    for neuron in range(dff.shape[0]):
        for start in range(windows):
            window = dff[neuron, start : start + config.windowsize].astype(np.float64)
            out[neuron, start] = np.mean([_evaluate(window, network) for network in networks])
    return out


def _evaluate(window: np.ndarray, network: Network) -> float:
    hidden = window[:, None]
    *convolutions, dense, readout = zip(network[::2], network[1::2], strict=True)
    for depth, (kernel, bias) in enumerate(convolutions):
        width = kernel.shape[0]
        steps = len(hidden) - width + 1
        hidden = np.stack([np.einsum("kc,kcd->d", hidden[t : t + width], kernel) for t in range(steps)])
        hidden = np.maximum(hidden + bias, 0)
        if depth > 0:
            hidden = hidden[: len(hidden) // 2 * 2].reshape(-1, 2, hidden.shape[1]).max(axis=1)
    hidden = np.maximum(hidden @ dense[0] + dense[1], 0)
    return float(hidden.reshape(-1) @ readout[0][:, 0] + readout[1][0])


def with_name(config: PackageConfig, name: str) -> PackageConfig:
    return replace(config, model_name=name)


def write_neuron(path: Path, trials: list[dict[str, np.ndarray]]) -> Path:
    """One neuron in CASCADE's layout: a row of cells, each with one struct."""
    cells = np.empty((1, len(trials)), dtype=object)
    for i, trial in enumerate(trials):
        cells[0, i] = np.array([[tuple(trial.values())]], dtype=[(name, object) for name in trial])
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"CAttached": cells})
    return path


def recorded_trial(
    seconds: float = 60.0, fs_hz: float = 10.0, seed: int = 0, noise: float = 0.01
) -> dict[str, np.ndarray]:
    """A trial with 40 spikes, in the fields of a ground truth file."""
    draw = np.random.default_rng(seed)
    time = np.arange(int(seconds * fs_hz)) / fs_hz + 0.05
    spikes = np.sort(draw.uniform(0, seconds, 40))
    dff = sum(0.2 * np.exp(-(time - s) / 1.0) * (time > s) for s in spikes)
    dff = dff + noise * draw.standard_normal(len(time))
    return {"fluo_time": time[None], "fluo_mean": dff[None], "events_AP": spikes[:, None] * 1e4}
