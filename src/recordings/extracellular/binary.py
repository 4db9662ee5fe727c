"""Files that are unpacked here: raw binary, NeuroScope, Trodes' export and SpikeGadgets ``.rec``.

Of ``.rec`` files neo reads the headers. It unpacks packets byte by byte and ignores their clock. A 64-channel session
of three hours is 41 GB, so packets are unpacked here with one copy; the clock says where packets were lost.
"""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular.formats import RATE_HINT, neuroscope_xml
from src.recordings.extracellular.recording import AS_SAVED, ExtracellularRecording, Run, jumps, runs_on_clock
from src.signals import BadInput, counted


def open_raw(path: Path, type_name: str, channels: int | None, fs_hz: float | None) -> ExtracellularRecording:
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
        raise BadInput(path, "states no sampling rate", RATE_HINT)
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
        said = (*said, f"{counted(left, 'channel')} left out, which the XML file skips or lists in no group")
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


_PART = re.compile(r"(?P<stem>.+?)(?:[._]part(?P<number>\d+))?\.rec", re.IGNORECASE)


def parts_of(path: Path) -> list[Path]:
    """All files of the session that a ``.rec`` file belongs to: ``rat.rec``, ``rat.part2.rec``, … in order."""
    match = _PART.fullmatch(path.name)
    assert match is not None
    found = {}
    for file in path.parent.iterdir():
        other = _PART.fullmatch(file.name)
        if other is not None and file.is_file() and other["stem"] == match["stem"]:
            found[int(other["number"] or 0)] = file
    return [found[number] for number in sorted(found)]


def open_rec(path: Path) -> ExtracellularRecording:
    """A session of one or more ``.rec`` files; tetrodes, or the shanks of probes, are its shanks."""
    from spikeinterface.extractors import read_spikegadgets

    from src.recordings.extracellular.vendors import adapt

    files = parts_of(path)
    pieces, clock, warnings, first = list[tuple[int, int, Any]](), list[int](), list[str](), None
    files_read = dict[str, Packets]()
    for file in files:
        recording = read_spikegadgets(str(file), stream_id="trodes")
        reader = recording.neo_reader
        if first is None:
            first = recording
        elif recording.channel_ids.tolist() != first.channel_ids.tolist():
            raise BadInput(
                file, f"has other channels than {files[0].name}", "process the parts in folders of their own"
            )
        packets = Packets(reader._raw_memmap, reader._timestamp_byte, reader._mask_channels_bytes["trodes"])
        if not len(packets):
            warnings.append(f"{file.name} holds no samples")
            continue
        if rest := packets.rest_bytes(file):
            warnings.append(f"{file.name} ends within a packet, of which {counted(rest, 'byte')} left out")
        files_read[file.name] = packets
        cuts = [0, *jumps(packets.clock, len(packets))]
        starts = [packets.clock(cut) for cut in cuts]
        pieces += [
            (a, b - a, packets.opener(a, start))
            for a, b, start in zip(cuts, [*cuts[1:], len(packets)], starts, strict=True)
        ]
        clock += starts
    if first is None or not pieces:
        raise BadInput(path, "holds no samples", "give a recording with samples")
    # The clock has 32 bits: after 40 hours at 30 kHz it starts again at 0.
    full = np.array(clock, np.int64)
    ends = full + np.array([count for _, count, _ in pieces])
    wraps = np.concatenate([[0], np.cumsum((full[1:] < ends[:-1]) & (ends[:-1] - full[1:] > 1 << 31))])
    fs_hz = float(first.get_sampling_frequency())
    runs, said = runs_on_clock(pieces, (full + (wraps << 32)).tolist(), fs_hz, "packets")
    opened = adapt(first, path, "SpikeGadgets .rec")
    if not first.has_probe():
        opened = _tetrodes(opened, first)
    warnings += [f"{len(files)} parts are joined: {', '.join(file.name for file in files)}"] if len(files) > 1 else []
    if opened.gain is None:
        opened = replace(opened, dtype=np.dtype(np.float32))  # samples may turn out to be missing

    def damage() -> list[str]:
        bad = {name: count for name, packets in files_read.items() if (count := packets.damaged)}
        why = "packets are damaged (no sync byte, or a time stamp out of order): NaN there"
        return [f"{name}: {count} {why}, {count / fs_hz:.3f} s in all" for name, count in bad.items()]

    said = (*opened.warnings, *warnings, *said)
    return replace(opened, runs=runs, warnings=said, files=tuple(files), damage=damage)


class Packets:
    """The packets of one ``.rec`` file: a sync byte, bytes of devices, a clock of 32 bits, samples of int16.

    Parameters
    ----------
    packets
        ``(packet, byte)``, mapped into memory.
    place
        Of the clock's first byte.
    masks
        ``(channel, byte)`` where each channel is.
    """

    SYNC = 0x55

    def __init__(self, packets: Any, place: int, masks: NDArray[np.bool_]) -> None:
        offsets = masks.argmax(axis=1)
        start, stop = int(offsets.min()), int(offsets.max()) + 2
        self._packets, self._place, self._samples = packets, place, slice(start, stop)
        self._columns = (offsets - start) // 2
        self._ordered = np.array_equal(self._columns, np.arange(len(self._columns)))
        self._bad = dict[int, int]()  # first of consecutive damaged packets, and the one after the last

    def __len__(self) -> int:
        return len(self._packets)

    def rest_bytes(self, file: Path) -> int:
        """Bytes behind the last whole packet."""
        return int((file.stat().st_size - self._packets.offset) % self._packets.shape[1])

    @property
    def damaged(self) -> int:
        """How many of the packets that were read are damaged; packets that were read twice count once."""
        count = end = 0
        for first, last in sorted(self._bad.items()):
            count += max(0, last - max(first, end))
            end = max(end, last)
        return count

    def clock(self, packet: int) -> int:
        """The clock of a packet; that of a damaged one is counted on from the nearest whole one."""
        size = 1
        while size < 2 * len(self):
            for first, last, nearest in ((packet + 1 - size, packet + 1, -1), (packet, packet + size, 0)):
                first, last = max(0, first), min(last, len(self))
                if len(whole := np.flatnonzero(self._whole(first, last))):
                    found = first + int(whole[nearest])
                    return (int(self._stamps(found, found + 1)[0]) + packet - found) % (1 << 32)
            size *= 16
        return int(self._stamps(packet, packet + 1)[0])

    def opener(self, start: int, clock: int) -> Any:
        """Reads packets as ``(time, channel)``, from packet ``start`` on, where the clock says ``clock``.

        One copy of the bytes behind the clock, int16; float32 with NaN where packets are damaged.
        """

        def read(first: int, last: int) -> NDArray:
            values = np.ascontiguousarray(self._packets[first:last, self._samples]).view("<i2")
            values = values if self._ordered else values[:, self._columns]
            due = (np.arange(first - start, last - start) + clock).astype(np.uint32)
            bad = (self._packets[first:last, 0] != self.SYNC) | (self._stamps(first, last) != due)
            if not bad.any():
                return values
            edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]))) + first
            for begin, end in edges.reshape(-1, 2).tolist():
                self._bad[begin] = max(end, self._bad.get(begin, 0))
            return np.where(bad[:, None], np.float32(np.nan), values.astype(np.float32))

        return lambda: nullcontext(read)

    def _stamps(self, first: int, last: int) -> NDArray[np.uint32]:
        stamps = self._packets[first:last, self._place : self._place + 4]
        return np.ascontiguousarray(stamps).view("<u4")[:, 0]

    def _whole(self, first: int, last: int) -> NDArray[np.bool_]:
        """Which packets have a sync byte and a clock that is one from that of such a neighbour."""
        before, after = max(0, first - 1), min(last + 1, len(self))
        synced = self._packets[before:after, 0] == self.SYNC
        paired = (np.diff(self._stamps(before, after)) == 1) & synced[1:] & synced[:-1]
        whole = np.zeros(after - before, bool)
        whole[1:] |= paired
        whole[:-1] |= paired
        return whole[first - before : last - before]


def _tetrodes(opened: ExtracellularRecording, recording: Any) -> ExtracellularRecording:
    """Channels grouped by the SpikeNTrode that neo's names quote: ``trode<id>chan<hwChan>``."""
    names = recording.get_property("channel_name")
    found = [re.match(r"trode(\d+)chan", str(name)) for name in names]
    if any(match is None for match in found):
        return opened
    groups = np.unique([int(match[1]) for match in found if match], return_inverse=True)[1].astype(np.int64)
    order = np.argsort(groups, kind="stable")
    return replace(opened, shanks=groups).select(order)
