"""The struct ``data`` of a FishExplorer ``data_full.mat``, in either MATLAB file format."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from src.recordings.matlab import load_mat
from src.signals import BadInput

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def read_struct(path: Path, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of ``fields`` that the struct ``data`` has, as arrays in MATLAB's orientation.

    Raises
    ------
    BadInput
        If the file cannot be read or holds no struct ``data``.
    """
    path = Path(path)
    try:
        return _from_hdf5(path, fields) if _is_hdf5(path) else _from_mat5(path, fields)
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None
    except Exception as error:
        # SciPy's reader raises whatever its parser stumbles over when a file is cut or corrupt.
        text = " ".join(str(error).split())[:120]
        raise BadInput(path, f"cannot be read as a MATLAB file ({text})", "copy it again") from error


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as handle:
        head = handle.read(520)
    # MATLAB puts a 512-byte text header in front of the HDF5 signature of a v7.3 file.
    return head[:8] == _HDF5_MAGIC or head[512:520] == _HDF5_MAGIC


def _from_mat5(path: Path, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    contents = load_mat(path, ["data"])
    if "data" not in contents or contents["data"].dtype.names is None:
        raise BadInput(path, "has no struct named data", "export the recording again")
    record = contents["data"][0, 0]
    return {name: record[name] for name in fields if name in record.dtype.names}


def _from_hdf5(path: Path, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise BadInput(path, "has no struct named data", "export the recording again")
        return {name: file["data"][name][()].T for name in fields if isinstance(file["data"].get(name), h5py.Dataset)}
