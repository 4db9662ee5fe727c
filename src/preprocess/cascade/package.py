"""CASCADE model packages on disk: a ``config.yaml`` and one Keras HDF5 file per noise level and ensemble member.

The format is that of Rupprecht et al. 2021, Nature Neuroscience 24:1324-1337.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from src.signals import BadInput
from src.storage.foreign_files import explained
from src.storage.manifest import digest_of
from src.storage.step import fingerprint

CONFIG_FILE = "config.yaml"
_MEMBER = re.compile(r"_NoiseLevel_(\d+)_Ensemble_(\d+)\.h5$")
_LARGEST_CONFIG_BYTES = 1 << 20
_COMPARE = "compare it with a published package"
_AGAIN = "delete the file and fetch the package again"


@dataclass(frozen=True, kw_only=True)
class PackageConfig:
    """What a package's ``config.yaml`` states, with units in the names."""

    model_name: str
    sampling_rate_hz: float  # of the recordings it was trained on
    training_datasets: tuple[str, ...] = ()
    noise_levels: tuple[int, ...]  # in % per square root of Hz, that there is an ensemble for
    smoothing_s: float  # width of the kernel that smoothed the true spikes
    causal_kernel: bool = False  # whether that kernel looks forward only
    windowsize: int  # frames a network sees
    before_frac: float  # fraction of them before the predicted frame
    filter_sizes: tuple[int, ...]  # widths of the three convolutions
    filter_numbers: tuple[int, ...]  # and their channels
    dense_expansion: int  # units of the layer behind them
    loss_function: str = "mean_squared_error"
    optimizer: str = "Adagrad"
    nr_of_epochs: int
    ensemble_size: int
    batch_size: int

    @property
    def first_frame(self) -> int:
        """Frame that upstream writes the prediction of the window starting at frame 0 to."""
        return self.trained_frame - 1

    @property
    def trained_frame(self) -> int:
        """Frame whose spikes that window was trained on: one later."""
        return int(self.before_frac * self.windowsize)

    def to_yaml(self) -> str:
        """The text of a ``config.yaml`` in CASCADE's own keys."""
        plain = {_KEYS.get(name, name): list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}
        closing = {"causal_kernel": int(self.causal_kernel), "training_finished": "Yes", "verbose": 0}
        return yaml.safe_dump(plain | closing, sort_keys=False)


_KEYS = {"sampling_rate_hz": "sampling_rate", "smoothing_s": "smoothing"}
"""Field → CASCADE's key, where they differ."""

_CONVERT: dict[Any, Callable[[Any], Any]] = {
    str: str,
    float: float,
    int: int,
    bool: bool,
    tuple[int, ...]: lambda values: tuple(int(value) for value in values),
    tuple[str, ...]: lambda values: tuple(str(value) for value in values or ()),
}
"""Annotation of a field → how its value is made from YAML."""


Network = list[np.ndarray]
"""Weights of one ensemble member: kernel and bias, float32, of its five layers; shapes: :func:`kernel_shapes`."""


@dataclass(frozen=True)
class Package:
    """A package folder whose configuration was read and whose member files were found."""

    folder: Path
    config: PackageConfig
    members: Mapping[int, tuple[Path, ...]]

    @property
    def name(self) -> str:
        return self.folder.name

    def networks(self, level: int) -> list[Network]:
        """The ensemble of one noise level, in the order of the file names."""
        from src.preprocess.cascade.keras_file import read_network

        return [read_network(path, self.config) for path in self.members[level]]

    def check_members(self) -> "Package":
        """Read every member file once.

        Raises
        ------
        BadInput
            If a noise level has fewer members than the configuration states, or a file is not whole.
        """
        for level in self.config.noise_levels:
            if (count := len(self.networks(level))) < self.config.ensemble_size:
                problem = f"has {count} of {self.config.ensemble_size} networks for noise level {level}"
                raise BadInput(self.folder, problem, "fetch the package again")
        return self

    def sha256(self) -> str:
        """One digest over the configuration and every member file, by name."""
        files = [self.folder / CONFIG_FILE, *(path for level in sorted(self.members) for path in self.members[level])]
        return digest_of([(p.name, fingerprint(p)) for p in files])


def open_package(folder: Path) -> Package:
    """Read a package's configuration and find its member files.

    Raises
    ------
    BadInput
        If the configuration is missing or incomplete, or a noise level has no member.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG_FILE)
    members: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.h5")):
        if not (match := _MEMBER.search(path.name)):
            raise BadInput(path, "is not named Model_NoiseLevel_<n>_Ensemble_<n>.h5", "take it out of the folder")
        members.setdefault(int(match[1]), []).append(path)
    if missing := sorted(set(config.noise_levels) - set(members)):
        levels = ", ".join(map(str, missing))
        raise BadInput(folder, f"has no Model_NoiseLevel_*.h5 for noise levels {levels}", "fetch the package again")
    return Package(folder, config, {level: tuple(paths) for level, paths in members.items()})


def read_config(path: Path) -> PackageConfig:
    """Read a ``config.yaml``.

    Raises
    ------
    BadInput
        If the file is missing, is no YAML mapping, or a key is missing or of the wrong kind.
    """
    path = Path(path)
    with explained(path, hint=_AGAIN):
        raw = plain_yaml(path.read_bytes(), _LARGEST_CONFIG_BYTES)
    if not isinstance(raw, dict):
        raise BadInput(path, "is not a list of settings", _AGAIN)
    try:
        config = PackageConfig(
            **{
                field.name: _CONVERT[field.type](raw[key])
                for field in fields(PackageConfig)
                if (key := _KEYS.get(field.name, field.name)) in raw or field.default is MISSING
            }
        )
    except KeyError as error:
        raise BadInput(path, f"has no setting {error.args[0]}", _COMPARE) from None
    except (TypeError, ValueError) as error:
        raise BadInput(path, f"has a setting of the wrong kind ({error})", _COMPARE) from None
    _check_config(path, config)
    return config


def plain_yaml(text: bytes, most_bytes: int) -> Any:
    """The content of a YAML text that is small and has no aliases, which a few lines turn into gigabytes.

    Raises
    ------
    ValueError, yaml.YAMLError
        If it is large, has an alias, or cannot be read.
    """
    if len(text) > most_bytes:
        raise ValueError(f"it is longer than {most_bytes} bytes")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("it repeats parts of itself by aliases (*name)")
    return yaml.safe_load(text)


def _check_config(path: Path, config: PackageConfig) -> None:
    problem = ""
    if not config.noise_levels:
        problem = "names no noise level"
    elif not config.sampling_rate_hz > 0 or not config.smoothing_s >= 0:
        problem = f"states {config.sampling_rate_hz} Hz and {config.smoothing_s} s of smoothing"
    elif len(config.filter_sizes) != 3 or len(config.filter_numbers) != 3:
        problem = "does not describe three convolutions"
    elif not 0 < config.trained_frame < config.windowsize:
        problem = f"puts the predicted frame at {config.trained_frame} of a window of {config.windowsize}"
    elif steps_before_readout(config) < 1:
        problem = f"has a window of {config.windowsize} frames, shorter than its filters"
    if problem:
        raise BadInput(path, problem, _COMPARE)


def steps_before_readout(config: PackageConfig) -> int:
    """Time steps of one window that are left after three convolutions and two poolings by two."""
    first, second, third = config.filter_sizes
    return ((config.windowsize - first - second + 2) // 2 - third + 1) // 2


def kernel_shapes(config: PackageConfig) -> list[tuple[int, ...]]:
    """Shapes of a network's five kernels; a bias has the last axis of its kernel.

    Three convolutions ``(frame, input channel, output channel)``, a dense layer at every remaining step ``(channel,
    unit)``, and the readout ``(step · unit, 1)``, steps first.
    """
    widths, units = (1, *config.filter_numbers), config.dense_expansion
    convolutions = zip(config.filter_sizes, widths, widths[1:], strict=False)
    return [*convolutions, (widths[-1], units), (steps_before_readout(config) * units, 1)]
