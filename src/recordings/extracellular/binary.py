"""Files in which the samples of all channels alternate: raw, NeuroScope's, and those of Trodes' export."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular.formats import neuroscope_xml
from src.recordings.extracellular.recording import AS_SAVED, ExtracellularRecording, Run
from src.signals import BadInput


def open_raw(
    path: Path, type_name: str, channels: int | None, fs_hz: float | None, rate_hint: str
) -> ExtracellularRecording:
    """A file without a header; :class:`BadInput` if what it needs to be read by is not given."""
    try:
        dtype = np.dtype(type_name)
    except TypeError:
        dtype = np.dtype("O")
    if dtype.kind not in "fiu":
        raise BadInput(path, f"dtype {type_name!r} is no type of number", "give int16, float32, …")
    if not channels or channels < 1:
        raise BadInput(path, "is a raw binary file of an unknown number of channels", "give source.channels=<number>")
    if fs_hz is None:
        raise BadInput(path, "states no sampling rate", rate_hint)
    values, said = _mapped(path, dtype, channels)
    return ExtracellularRecording.of_array(path, "raw binary", fs_hz, values, warnings=said)


def _mapped(path: Path, dtype: np.dtype, n_channels: int) -> tuple[NDArray, tuple[str, ...]]:
    """The whole samples ``(time, channel)`` of a file, mapped into memory, and what to say of a rest."""
    count, rest = divmod(path.stat().st_size, dtype.itemsize * n_channels)
    if not count:
        raise BadInput(path, "holds no whole sample", "check dtype and channels")
    said = (f"its last {rest} bytes are no whole sample of {n_channels} channels",) if rest else ()
    return np.memmap(path, dtype, "r", shape=(count, n_channels)), said


def open_neuroscope(path: Path) -> ExtracellularRecording:
    """Samples of all channels in turn; rate, groups and gain from the XML file beside them.

    neo gives ``.lfp`` and ``.eeg`` files the rate of the ``.dat`` file, so the XML file is read here.
    """
    xml = neuroscope_xml(path)
    assert xml is not None
    root = ElementTree.parse(xml).getroot()
    system = root.find("acquisitionSystem")
    assert system is not None
    n_channels, bits = int(system.findtext("nChannels", "0")), int(system.findtext("nBits", "16"))
    reduced = path.suffix.lower() in (".lfp", ".eeg")
    stated = root.findtext("fieldPotentials/lfpSamplingRate") if reduced else system.findtext("samplingRate")
    if stated is None:
        raise BadInput(xml, "states no lfpSamplingRate", "add it with NeuroScope, or give source.fs_hz")
    reach, amplification = float(system.findtext("voltageRange", "0")), float(system.findtext("amplification", "0"))
    values, said = _mapped(path, np.dtype(f"<i{bits // 8}"), n_channels)
    groups = [
        [(int(c.text or 0), c.get("skip") == "1") for c in group.findall("channel")]
        for group in root.findall("anatomicalDescription/channelGroups/group")
    ]
    listed = [(channel, number, skip) for number, group in enumerate(groups) for channel, skip in group]
    kept = [(channel, number) for channel, number, skip in listed if not skip] or [(c, 0) for c in range(n_channels)]
    if left := n_channels - len(kept):
        said = (*said, f"{left} channels are left out: the XML file skips them or lists them in no group")
    scaled = reach > 0 and amplification > 0
    recording = ExtracellularRecording.of_array(
        path,
        "NeuroScope",
        float(stated),
        values,
        gain=np.full(n_channels, 1e6 * reach / 2**bits / amplification, np.float32) if scaled else None,
        units="uV" if scaled else "unknown",
        upstream="NeuroScope LFP file, low-passed when made" if reduced else f"NeuroScope {path.suffix}, {AS_SAVED}",
        warnings=said,
        files=(path, xml),
    )
    channels = np.array([channel for channel, _ in kept])
    return replace(recording.select(channels), shanks=np.array([number for _, number in kept], np.int64))


def _trodes_header(path: Path) -> tuple[dict[str, str], int]:
    head = path.open("rb").read(1 << 16)
    end = head.index(b"<End settings>")
    settings = dict(line.split(":", 1) for line in head[:end].decode("latin-1").splitlines() if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in settings.items()}, head.index(b"\n", end) + 1


def _trodes_fields(header: dict[str, str]) -> list[tuple[str, np.dtype]]:
    """Name and type of every field of a packet; ``<time uint32><voltage 2*int16>`` is written so."""
    kinds = header["fields"].removeprefix("<").removesuffix(">").split("><")
    fields = (kind.rsplit(" ", 1) for kind in kinds)
    return [(name, np.dtype(kind.split("*")[-1]).newbyteorder("<")) for name, kind in fields]


def open_trodes(path: Path) -> ExtracellularRecording:
    """The files that Trodes' export writes: one per channel, or one for all, and a clock beside them."""
    files = sorted(path.parent.glob(path.name.split("nt")[0] + "nt*ch*" + path.suffix)) if "nt" in path.name else [path]
    settings, _ = _trodes_header(path)
    decimation = float(settings.get("decimation", "1"))
    fs_hz = float(settings.get("clockrate", settings.get("clock rate", "30000"))) / decimation
    columns, ids, groups = [], [], []
    for file in files:
        header, offset = _trodes_header(file)
        dtype = np.dtype([field for field in _trodes_fields(header) if field[0] != "time"])
        data = np.memmap(file, dtype, "r", offset)
        for name in dtype.names or ():
            columns.append(data[name])
            ids.append(f"nt{header.get('ntrode_id', '0')}ch{header.get('ntrode_channel', name)}")
            groups.append(int(header.get("ntrode_id", 0)))
    gain = settings.get("voltage_scaling")
    count = min(map(len, columns))

    def read(first: int, last: int) -> NDArray:
        return np.stack([column[first:last] for column in columns], axis=1)

    clocks = sorted(path.parent.glob("*timestamps.dat"))
    clock = np.arange(2)
    if clocks:
        header, offset = _trodes_header(clocks[0])
        clock = np.asarray(np.memmap(clocks[0], _trodes_fields(header)[0][1], "r", offset), np.int64)
    step = round(decimation)
    cuts = np.flatnonzero(np.diff(clock) > 1.5 * step) + 1 if len(clock) == count else ()
    recording = ExtracellularRecording(
        path=path,
        source_format="Trodes export",
        fs_hz=fs_hz,
        channel_ids=np.array(ids),
        runs=(Run(0, 0, count, lambda: nullcontext(read)),),
        shanks=np.unique(groups, return_inverse=True)[1].astype(np.int64),
        dtype=np.dtype(np.int16),
        gain=None if gain is None else np.full(len(ids), float(gain), np.float32),
        units="unknown" if gain is None else "uV",
        upstream="Trodes export: filtered and referenced as its settings say",
        files=tuple(files),
    )
    return recording.on_clock(cuts, lambda sample: int(clock[sample]) // step)
