"""LFP traces of a shank in the format of the original extraction, written block by block."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@contextmanager
def trace_file(
    path: Path, shape: tuple[int, int], dtype: np.dtype, fields: Mapping[str, ArrayLike | Any]
) -> Iterator[Callable[[NDArray], None]]:
    """Write ``traces`` (n_samples, n_channels) and further arrays into an ``.npz`` file.

    Parameters
    ----------
    shape, dtype
        Of the traces.
    fields
        ``sampling_rate``, ``channel_ids`` and whatever else belongs to them.

    Yields
    ------
    What takes the next ``(time, channel)`` block.
    """
    header = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_entry("traces"), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)

            def write(block: NDArray) -> None:
                member.write(np.ascontiguousarray(block, dtype).data.cast("B"))

            yield write
        for name, value in fields.items():
            with archive.open(_entry(name), "w") as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    """With a fixed time stamp: the same content makes the same file."""
    return zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
