"""The reference engine: ``neuralib.spikes.cascade`` as it is, on a copy of the package it can open.

neuralib loads the HDF5 files with Keras, which since version 3 refuses the optimizer settings of old
packages, and it asks the network for a catalogue that is not beside the packages. Both are met by a
scratch folder: the same weights without the optimizer's settings, and a catalogue of one entry.
"""

import contextlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from src.preprocess.cascade.dense import import_tensorflow
from src.preprocess.cascade.download import CATALOGUE_FILE
from src.preprocess.cascade.package import CONFIG_FILE, Package


def neuralib_predict(
    dff: np.ndarray, package: Package, level: int | None, threshold: Literal[0, 1] | None
) -> np.ndarray:
    """``(neuron, time)`` float64 expected spikes per frame from ``neuralib.spikes.cascade.cascade_predict``.

    ``level`` makes every neuron use that ensemble; ``None`` leaves the choice to neuralib.
    """
    import_tensorflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralib.spikes.cascade import cascade_predict
    name: Any = package.name  # neuralib types the names of the packages it knew at its release
    with scratch_copy(package, level) as cache, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cascade_predict(
            dff,
            name,
            threshold=False if threshold is None else threshold,
            padding=np.nan,
            verbose=False,
            cache_dir=cache,
        )


@contextlib.contextmanager
def scratch_copy(package: Package, level: int | None = None) -> Iterator[Path]:
    """A cache folder for neuralib that holds this package (one noise level of it, if given)."""
    with tempfile.TemporaryDirectory(prefix="neurolit-neuralib-") as name:
        cache = Path(name)
        (cache / CATALOGUE_FILE).write_text(f'"{package.name}":\n  Link: none\n', encoding="utf-8")
        folder = cache / package.name
        folder.mkdir()
        levels = package.config.noise_levels if level is None else (level,)
        config = replace(package.config, noise_levels=levels)
        (folder / CONFIG_FILE).write_text(config.to_yaml(), encoding="utf-8")
        for path in (path for level in levels for path in package.members[level]):
            copy = folder / path.name
            shutil.copyfile(path, copy)
            with h5py.File(copy, "r+") as file:
                file.attrs.pop("training_config", None)
        yield cache
