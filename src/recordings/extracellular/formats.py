"""Which format of which vendor a file or folder has, by its names and first bytes alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RATE_HINT = "give source.fs_hz=<Hz>"
"""What to type for a file that does not state its sampling rate."""
EDF_HEAD = b"0       "
_SAVED = ("si_folder.json", "binary.json", "cached.json", "provenance.json")


def neuroscope_xml(path: Path) -> Path | None:
    """The parameters beside a NeuroScope file, ``None`` if it is no such file."""
    if not path.is_file() or path.suffix.lower() not in (".dat", ".lfp", ".eeg"):
        return None
    found = [p for p in (path.with_suffix(".xml"), path.parent / f"{path.parent.name}.xml") if p.is_file()]
    others = [] if found else list(path.parent.glob("*.xml"))
    xml = found[0] if found else others[0] if len(others) == 1 else None
    return xml if xml is not None and b"<acquisitionSystem" in xml.read_bytes() else None


def begins(path: Path, *heads: bytes) -> bool:
    """Whether the first bytes of a file, 16 at most, are one of ``heads``."""
    with path.open("rb") as handle:
        return handle.read(16).startswith(heads)


@dataclass(frozen=True)
class Format:
    """A format of a vendor."""

    name: str  # for messages and provenance
    found: Callable[[Path], bool]  # whether a file or folder has this format
    reader: str  # name of SpikeInterface's function; those of binary.py begin with open_


def _suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.suffix.lower() in suffixes


def _holds(pattern: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and next(path.glob(pattern), None) is not None


FORMATS = (
    # Some polysomnographs call their EDF files .rec, too.
    Format("SpikeGadgets .rec", lambda p: _suffix(".rec")(p) and not begins(p, EDF_HEAD), "open_rec"),
    Format("SpikeGLX .ap/.lf/.nidq .bin with .meta", lambda p: bool(spikeglx_folder(p)), "read_spikeglx"),
    Format("Open Ephys binary", lambda p: bool(open_ephys_folder(p)), "read_openephys"),
    Format("Open Ephys .continuous", _holds("*.continuous"), "read_openephys"),
    Format("Intan .rhd/.rhs", lambda p: _suffix(".rhd", ".rhs")(p) or _holds("*.rh[ds]")(p), "read_intan"),
    Format("NeuroScope .dat/.lfp/.eeg with .xml", lambda p: neuroscope_xml(p) is not None, "open_neuroscope"),
    Format("Trodes export .dat", lambda p: _suffix(".dat", ".lfp")(p) and begins(p, b"<Start settings"), "open_trodes"),
    Format("Blackrock .ns1–.ns6", _suffix(*(f".ns{i}" for i in range(1, 7))), "read_blackrock"),
    Format("Plexon .plx", _suffix(".plx"), "read_plexon"),
    Format("Plexon .pl2", _suffix(".pl2"), "read_plexon2"),
    Format("MC_DataTool .raw", lambda p: _suffix(".raw")(p) and begins(p, b"MC_DataTool"), "read_mcsraw"),
    Format("NWB ElectricalSeries", _suffix(".nwb"), "read_nwb_recording"),
    Format("SpikeInterface folder", lambda p: p.is_dir() and any((p / n).is_file() for n in _SAVED), "load"),
    Format("SpikeInterface .zarr", lambda p: p.is_dir() and p.suffix == ".zarr", "load"),
    Format("Neuralynx folder of .ncs", _holds("*.ncs"), "read_neuralynx"),
    Format("TDT folder of .tev", _holds("*.tev"), "read_tdt"),
    Format("Spike2 .smr/.smrx", _suffix(".smr", ".smrx"), "read_spike2"),
    Format("NeuroNexus .xdat.json", lambda p: p.name.endswith(".xdat.json"), "read_neuronexus"),
    Format("Alpha Omega folder of .mpx", _holds("*.mpx"), "read_alphaomega"),
    Format("Axona .set", _suffix(".set"), "read_axona"),
    Format("NIX", _suffix(".nix"), "read_nix"),
    Format("EDF", _suffix(".edf"), "read_edf"),
)
NO_LFP = "EDF", "NIX"  # formats of the clinic that SpikeInterface reads, too
ARRAYS = "arrays .npz, .npy, .h5, .mat", "WAV", "raw binary with source.dtype, source.channels and source.fs_hz"


def vendor_format(path: Path) -> Format | None:
    """Which of :data:`FORMATS` a file or folder has."""
    return next((known for known in FORMATS if known.found(Path(path))), None)


def spikeglx_folder(path: Path) -> Path | None:
    if path.is_file() and path.suffix == ".bin" and path.with_suffix(".meta").is_file():
        return path.parent
    here = path.is_dir() and any(next(path.glob(place), None) for place in ("*.meta", "*_imec*/*.meta"))
    return path if here else None


_OPEN_EPHYS = ("", "recording*/", "experiment*/recording*/", "Record*/experiment*/recording*/")


def open_ephys_folder(path: Path) -> Path | None:
    """The folder of a session from any file or folder of it."""
    if path.is_file() and path.name == "structure.oebin":
        return path.parent
    if path.is_file() and path.name == "continuous.dat":
        return next((p for p in path.parents[:4] if (p / "structure.oebin").is_file()), None)
    here = path.is_dir() and any(next(path.glob(f"{place}structure.oebin"), None) for place in _OPEN_EPHYS)
    return path if here else None
