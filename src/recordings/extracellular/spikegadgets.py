"""SpikeGadgets ``.rec`` files: headers through neo, packets and their clock here, parts of a session joined.

neo unpacks packets byte by byte and ignores their clock. A 64-channel session of three hours is 41 GB, so packets
are unpacked here with one copy; the clock says where packets were lost.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular.recording import ExtracellularRecording, jumps, runs_on_clock
from src.signals import BadInput

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
    for file in files:
        recording = read_spikegadgets(str(file), stream_id="trodes")
        reader = recording.neo_reader
        if first is None:
            first = recording
        elif recording.channel_ids.tolist() != first.channel_ids.tolist():
            raise BadInput(
                file, f"has other channels than {files[0].name}", "process the parts in folders of their own"
            )
        packets, place = reader._raw_memmap, reader._timestamp_byte
        if not len(packets):
            warnings.append(f"{file.name} holds no samples")
            continue
        rest = (file.stat().st_size - packets.offset) % packets.shape[1]
        if rest:
            warnings.append(f"{file.name} ends within a packet: its last {rest} bytes are left out")

        def at(sample: int, packets: Any = packets, place: int = place) -> int:
            return int(np.frombuffer(bytes(packets[sample, place : place + 4]), "<u4")[0])

        cuts = [0, *jumps(at, len(packets))]
        opener = _opener(packets, reader._mask_channels_bytes["trodes"])
        pieces += [(a, b - a, opener) for a, b in zip(cuts, [*cuts[1:], len(packets)], strict=True)]
        clock += [at(cut) for cut in cuts]
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
    return replace(opened, runs=runs, warnings=(*opened.warnings, *warnings, *said), files=tuple(files))


def _opener(packets: Any, masks: NDArray[np.bool_]) -> Any:
    """Packets as ``(time, channel)`` int16: one copy of the bytes behind the clock."""
    offsets = masks.argmax(axis=1)
    start, stop = int(offsets.min()), int(offsets.max()) + 2
    columns = (offsets - start) // 2
    ordered = np.array_equal(columns, np.arange(len(columns)))

    def read(first: int, last: int) -> NDArray:
        values = np.ascontiguousarray(packets[first:last, start:stop]).view("<i2")
        return values if ordered else values[:, columns]

    return lambda: nullcontext(read)


def _tetrodes(opened: ExtracellularRecording, recording: Any) -> ExtracellularRecording:
    """Channels grouped by the SpikeNTrode that neo's names quote: ``trode<id>chan<hwChan>``."""
    names = recording.get_property("channel_name")
    found = [re.match(r"trode(\d+)chan", str(name)) for name in names]
    if any(match is None for match in found):
        return opened
    groups = np.unique([int(match[1]) for match in found if match], return_inverse=True)[1].astype(np.int64)
    order = np.argsort(groups, kind="stable")
    return replace(opened, shanks=groups).select(order)
