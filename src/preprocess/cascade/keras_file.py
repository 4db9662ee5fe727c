"""The Keras HDF5 files that networks are kept in, read and written with h5py alone.

No Keras is asked to rebuild a model, so a file of any age opens: the weights are plain arrays under a
handful of known layouts. What is written has the layout of the published packages, which CASCADE, neuralib,
Keras 2 and Keras 3 open; the same weights give the same bytes.
"""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.cascade.package import Network, PackageConfig, kernel_shapes
from src.signals import BadInput
from src.storage.foreign_files import explained
from src.storage.hdf5 import bounded_array

KERAS_VERSION = "2.1.6"
"""Version whose layout is written; the oldest that a published package states."""

_LARGEST_KERNEL_BYTES = 1 << 24
_MOST_LAYERS = 32
_AGAIN = "delete the file and fetch the package again"


def read_network(path: Path, config: PackageConfig) -> Network:
    """Read one ensemble member, whichever Keras wrote it.

    Two layouts are known: ``model_weights/<layer>/…/kernel:0`` and ``bias:0`` (Keras 2, and the HDF5
    files of Keras 3 with or without the ``:0``), and ``…/<layer>/vars/0`` and ``1`` (Keras 3 weights).

    Raises
    ------
    BadInput
        If the file is not whole, or its layers are not the network that ``config`` describes.
    """
    with explained(path, "is not a whole HDF5 file", _AGAIN), h5py.File(path, "r") as file:
        layers = _layers(file, path)
    layers.sort(key=lambda layer: -layer[0].ndim)  # convolutions first
    found, expected = [kernel.shape for kernel, _ in layers], kernel_shapes(config)
    if found != expected:
        raise BadInput(path, f"holds layers {found}, not the {expected} of its config.yaml", _AGAIN)
    return [array for layer in layers for array in layer]


def _layers(file: h5py.File, path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    groups: dict[str, dict[str, h5py.Dataset]] = {}

    def collect(name: str, item: Any) -> None:
        parent, _, leaf = name.rpartition("/")
        leaf = leaf.removesuffix(":0")
        if not isinstance(item, h5py.Dataset) or name.startswith("optimizer"):
            return
        if parent.endswith("/vars") and leaf in ("0", "1"):
            parent, leaf = parent.removesuffix("/vars"), ("kernel", "bias")[int(leaf)]
        if leaf in ("kernel", "bias"):
            groups.setdefault(parent, {})[leaf] = item

    file.visititems(collect)
    if len(groups) > _MOST_LAYERS:
        raise BadInput(path, f"has {len(groups)} layers, CASCADE's networks have 5", _AGAIN)
    layers = []
    # Keras numbers layers of a kind in the order in which they were made; the first may have no number.
    for parent in sorted(groups, key=lambda name: (name.rpartition("/")[2].rstrip("0123456789"), _number(name))):
        pair = groups[parent]
        if len(pair) != 2 or any(data.dtype.kind != "f" for data in pair.values()):
            raise BadInput(path, f"has a layer {parent} without a kernel and a bias of numbers", _AGAIN)
        kernel, bias = (
            bounded_array(pair[leaf], path, _LARGEST_KERNEL_BYTES).astype(np.float32) for leaf in ("kernel", "bias")
        )
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()) or bias.shape != kernel.shape[-1:]:
            raise BadInput(path, f"has a layer {parent} whose weights are not finite or do not fit", _AGAIN)
        layers.append((kernel, bias))
    return layers


def _number(name: str) -> int:
    digits = re.search(r"(\d+)$", name)
    return int(digits[1]) if digits else 0


def member_name(level: int, member: int) -> str:
    """File name of one ensemble member."""
    return f"Model_NoiseLevel_{level}_Ensemble_{member}.h5"


def write_network(path: Path, network: Network, config: PackageConfig) -> None:
    """Write one network to a ``.h5`` file in the folder of a step, which appears whole or not at all."""
    shape = {"batch_input_shape": [None, config.windowsize, 1], "dtype": "float32", "sparse": False}
    pooling = {"strides": [2], "pool_size": [2], "padding": "valid"}
    relu = {"activation": "relu", "use_bias": True}
    plain = {"strides": [1], "padding": "valid", "dilation_rate": [1], **relu}
    sizes = zip(config.filter_numbers, config.filter_sizes, strict=True)
    first, second, third = ({"filters": filters, "kernel_size": [size], **plain} for filters, size in sizes)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("InputLayer", "input_1", shape),
        ("Conv1D", "conv1d_1", first),
        ("Conv1D", "conv1d_2", second),
        ("MaxPooling1D", "max_pooling1d_1", pooling),
        ("Conv1D", "conv1d_3", third),
        ("MaxPooling1D", "max_pooling1d_2", pooling),
        ("Dense", "dense_1", {"units": config.dense_expansion, **relu}),
        ("Flatten", "flatten_1", {}),
        ("Dense", "dense_2", {"units": 1, "activation": "linear", "use_bias": True}),
    ]
    names = [name for _, name, _ in kinds]
    layers: list[dict[str, Any]] = [
        {
            "name": name, "class_name": kind, "config": {"name": name, **settings},
            "inbound_nodes": [[[before, 0, 0, {}]]] if before else [],
        }
        for (kind, name, settings), before in zip(kinds, ["", *names], strict=False)
    ]  # fmt: skip
    ends = {"input_layers": [[names[0], 0, 0]], "output_layers": [[names[-1], 0, 0]]}
    model = {"class_name": "Model", "config": {"name": "model_1", "layers": layers, **ends}}
    arrays = iter(network)
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        group = file.create_group("model_weights")
        for place in (file, group):
            place.attrs["backend"] = "tensorflow"
            place.attrs["keras_version"] = KERAS_VERSION
        group.attrs["layer_names"] = np.array([name.encode() for name in names])
        for kind, name, _ in kinds:
            own, leaves = group.create_group(name), ("kernel:0", "bias:0") if kind in ("Conv1D", "Dense") else ()
            own.attrs["weight_names"] = np.array([f"{name}/{leaf}".encode() for leaf in leaves], dtype="S64")
            for leaf in leaves:
                own.create_dataset(f"{name}/{leaf}", data=np.asarray(next(arrays), dtype=np.float32))
