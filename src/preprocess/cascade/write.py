"""Writing networks in CASCADE's own files, so that CASCADE, neuralib and this project can all open them.

The layout is that of the published packages, which Keras 2 and Keras 3 both read: the architecture as
JSON in an attribute, the arrays under ``model_weights/<layer>/<layer>/kernel:0``. It is written with
h5py alone; the same weights give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.cascade.package import Network, PackageConfig
from src.storage.atomic import atomic_file

KERAS_VERSION = "2.1.6"
"""Version whose layout this is; the oldest that a published package states."""


def member_name(level: int, member: int) -> str:
    """File name of one ensemble member."""
    return f"Model_NoiseLevel_{level}_Ensemble_{member}.h5"


def write_member(path: Path, network: Network, config: PackageConfig) -> None:
    """Write one network to a ``.h5`` file.

    Raises
    ------
    BadInput
        If the place cannot be written or the disk is full.
    """
    layers = _layers(config)
    weights = dict(zip(_weighted(layers), (*network.convolutions, network.dense, network.readout), strict=True))
    with atomic_file(path) as part, h5py.File(part, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = KERAS_VERSION
        file.attrs["model_config"] = json.dumps(_model(layers))
        group = file.create_group("model_weights")
        group.attrs["backend"] = "tensorflow"
        group.attrs["keras_version"] = KERAS_VERSION
        group.attrs["layer_names"] = np.array([layer["name"].encode() for layer in layers])
        for layer in layers:
            own = group.create_group(layer["name"])
            arrays = dict(zip(("kernel:0", "bias:0"), weights.get(layer["name"], ()), strict=False))
            own.attrs["weight_names"] = np.array([f"{layer['name']}/{leaf}".encode() for leaf in arrays], dtype="S64")
            for leaf, array in arrays.items():
                own.create_dataset(f"{layer['name']}/{leaf}", data=np.asarray(array, dtype=np.float32))


def _weighted(layers: list[dict[str, Any]]) -> list[str]:
    convolutions = [layer["name"] for layer in layers if layer["class_name"] == "Conv1D"]
    return convolutions + [layer["name"] for layer in layers if layer["class_name"] == "Dense"]


def _model(layers: list[dict[str, Any]]) -> dict[str, Any]:
    ends = {"input_layers": [[layers[0]["name"], 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    return {"class_name": "Model", "config": {"name": "model_1", "layers": layers, **ends}}


def _layers(config: PackageConfig) -> list[dict[str, Any]]:
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        (
            "InputLayer",
            "input_1",
            {"batch_input_shape": [None, config.windowsize, 1], "dtype": "float32", "sparse": False},
        ),
        ("Conv1D", "conv1d_1", _convolution(config, 0)),
        ("Conv1D", "conv1d_2", _convolution(config, 1)),
        ("MaxPooling1D", "max_pooling1d_1", {"strides": [2], "pool_size": [2], "padding": "valid"}),
        ("Conv1D", "conv1d_3", _convolution(config, 2)),
        ("MaxPooling1D", "max_pooling1d_2", {"strides": [2], "pool_size": [2], "padding": "valid"}),
        ("Dense", "dense_1", {"units": config.dense_expansion, "activation": "relu", "use_bias": True}),
        ("Flatten", "flatten_1", {}),
        ("Dense", "dense_2", {"units": 1, "activation": "linear", "use_bias": True}),
    ]
    layers: list[dict[str, Any]] = []
    for class_name, name, settings in kinds:
        inbound = [[[layers[-1]["name"], 0, 0, {}]]] if layers else []
        layers.append(
            {"name": name, "class_name": class_name, "config": {"name": name, **settings}, "inbound_nodes": inbound}
        )
    return layers


def _convolution(config: PackageConfig, index: int) -> dict[str, Any]:
    return {
        "filters": config.filter_numbers[index],
        "kernel_size": [config.filter_sizes[index]],
        "strides": [1],
        "padding": "valid",
        "dilation_rate": [1],
        "activation": "relu",
        "use_bias": True,
    }
