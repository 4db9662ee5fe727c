"""What is known about a subject's grids beside the grids: ``metadata.h5``, and all subjects in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.calcium.grid import PIXELS, CellMap, VoxelActivity, marker_mask
from src.preprocess.calcium.grid_io import COO_BYTES_PER_ENTRY, COO_FILE, GridHeader
from src.storage.hdf5 import writing
from src.storage.output import OutputFolder

METADATA_FILE, COMBINED_FILE = "metadata.h5", "combined_metadata.h5"


def statistics(activity: VoxelActivity, cells: CellMap, header: GridHeader) -> dict[str, Any]:
    """Counts and sizes as they are: markers apart from spikes, density called density, bytes in full."""
    dense, entries = header.total_pixels, activity.entries(header.markers)
    index = 2 * entries + 8 * (header.frames * header.planes + 1)
    return {
        "total_spikes": entries,
        "sparsity_percent": _percent(entries, dense),
        "active_voxels": activity.active,
        "density_percent": _percent(activity.active, dense),
        "cell_spikes": activity.cell_spikes,
        "num_cells": len(cells.plane),
        "occupied_voxels": cells.occupied,
        "marker_pixels_per_frame": int(marker_mask(header.planes).sum()) if header.markers else 0,
        "dense_bytes": dense,
        "coo_bytes": COO_BYTES_PER_ENTRY * entries,
        "index_bytes": index,
        "coo_saving_percent": 100 - _percent(COO_BYTES_PER_ENTRY * entries, dense),
        "index_saving_percent": 100 - _percent(index, dense),
    }


def write_metadata(
    path: Path, header: GridHeader, cells: CellMap, cell_arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Write ``metadata.h5`` of one subject.

    Parameters
    ----------
    header
        Splits and planes.
    cells, cell_arrays
        Grid position of every cell, and further ``(cell,)`` arrays by name.
    facts
        Plain values; they become attributes.
    """
    with writing(path) as file:
        file["num_timepoints"], file["num_z_planes"] = header.frames, header.planes
        file["z_values"] = header.z_values
        file["train_timepoints"] = np.flatnonzero(header.is_train).astype(np.int64)
        file["test_timepoints"] = np.flatnonzero(header.is_test).astype(np.int64)
        for name in ("is_train", "is_test", "is_valid"):
            file[name] = getattr(header, name)
        file["cell_row"], file["cell_column"] = cells.row.astype(np.uint8), cells.column.astype(np.uint8)
        file["cell_plane"] = cells.plane.astype(np.uint16)
        for name, values in cell_arrays.items():
            file[name] = values
        file.attrs.update(header.attributes | {"z_markers": header.markers} | dict(facts))


def write_combined(output: OutputFolder, subjects: list[str], sparse: bool) -> dict[str, Any]:
    """Gather ``metadata.h5`` of all ``subjects`` in ``combined_metadata.h5``; returns the totals.

    Without a subject nothing is written: a file of earlier results stays as it is.
    """
    if not subjects:
        return {}
    totals = {"total_subjects": len(subjects), "total_spikes": 0, "total_pixels": 0}
    with output.files() as part, writing(part / COMBINED_FILE) as combined:
        for subject in subjects:
            with h5py.File(Path(output.root) / subject / METADATA_FILE, "r") as file:
                group = combined.create_group(subject)
                for name in file:
                    file.copy(name, group)
                # Scalars are found both ways: as the dense pipeline's datasets and the sparse one's attributes.
                group.attrs.update({name: file[name][()] for name in ("num_timepoints", "num_z_planes")})
                group.attrs.update(dict(file.attrs))
                frames, planes = int(file["num_timepoints"][()]), int(file["num_z_planes"][()])
                totals["total_spikes"] += int(file.attrs["total_spikes"])
                totals["total_pixels"] += frames * planes * PIXELS
        overall = _percent(totals["total_spikes"], totals["total_pixels"])
        combined.attrs.update(totals | {"overall_sparsity_percent": overall})
        combined.attrs["format"] = "COO_sparse" if sparse else "dense"
    return totals | {"overall_sparsity_percent": overall}


def is_sparse(folder: Path) -> bool:
    """Whether a finished subject's folder holds the sparse format."""
    return (folder / COO_FILE).is_file()


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
