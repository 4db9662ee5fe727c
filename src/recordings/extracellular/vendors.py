"""Vendors' recordings through SpikeInterface and neo: streams, groups, gains, pauses and clocks made uniform."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular import binary
from src.recordings.extracellular.formats import (
    ARRAYS,
    FORMATS,
    Format,
    open_ephys_folder,
    spikeglx_folder,
    vendor_format,
)
from src.recordings.extracellular.recording import (
    AS_SAVED,
    ExtracellularRecording,
    Opener,
    Run,
    runs_on_clock,
)
from src.signals import BadInput
from src.storage.foreign_files import explained

_VOLTS = {"uV", "mV", "V", "Volt", "Volts"}


def open_vendor(path: Path, stream: str | None, purpose: str) -> ExtracellularRecording:
    """Open a vendor's file or folder; see :func:`.reader.open_recording`."""
    known = vendor_format(path)
    if known is None:
        names = "; ".join([*ARRAYS, *(one.name for one in FORMATS)])
        raw = "a raw binary file needs source.dtype=int16 source.channels=<number> source.fs_hz=<Hz>; "
        raise BadInput(path, "is of no known format", f"{raw if path.is_file() else ''}these can be read: {names}")
    with explained(path, f"cannot be read as {known.name}", "check that the recording is whole"), _quiet():
        try:
            if known.reader.startswith("open_"):
                opened: ExtracellularRecording = getattr(binary, known.reader)(path)
                return opened
            return _through_spikeinterface(path, known, stream, purpose)
        except Exception as error:
            if "multi-block" in str(error):
                raise BadInput(path, "holds several experiments", "give the folder of one of them") from error
            # neo asserts that its optional packages are there.
            if package := re.fullmatch(r"[Rr]equires (\w+)", str(error).strip()):
                raise ImportError(f"No module named {package[1]!r}", name=package[1]) from error
            raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the readers' own warnings and progress bars; our notes replace them."""
    logger = logging.getLogger("neo")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _through_spikeinterface(path: Path, known: Format, stream: str | None, purpose: str) -> ExtracellularRecording:
    import spikeinterface.extractors as extractors
    from spikeinterface.core import load

    if known.reader == "load":
        return adapt(load(path), path, known.name)
    read, options, place = getattr(extractors, known.reader), dict[str, Any](), path
    if known.reader == "read_spikeglx":
        place = spikeglx_folder(path) or path
        if path.is_file() and stream is None:
            band = path.name.removesuffix(".bin").rpartition(".")[2]
            stream = next((n for n in _streams(read, place, {})[0] if n.endswith(band)), None)
    elif known.name == "Open Ephys binary":
        place = open_ephys_folder(path) or path
    elif known.reader == "read_intan":
        place, options = _intan_file(path), {"ignore_integrity_checks": True}
    elif known.reader == "read_nwb_recording":
        return _nwb(path, stream)
    elif known.reader == "read_axona":
        return adapt(read(place), path, known.name)
    recording, said = _stream(read, place, options, stream, purpose)
    opened = adapt(recording, path, known.name, warnings=said)
    if known.reader == "read_intan" and getattr(recording.neo_reader, "discontinuous_timestamps", False):
        clock = np.asarray(recording.neo_reader.get_intan_timestamps(), np.int64)
        return opened.on_clock(np.flatnonzero(np.diff(clock) != 1) + 1, lambda sample: int(clock[sample]))
    if known.name == "Open Ephys binary":
        return _open_ephys_clock(opened, recording)
    return _plexon(opened, recording) if known.reader == "read_plexon" else opened


def _stream(
    read: Any, place: Path, options: dict[str, Any], stream: str | None, purpose: str
) -> tuple[Any, tuple[str, ...]]:
    """The stream the user named, or the one of several that serves the purpose."""
    names, ids = _streams(read, place, options)
    wanted = [i for name, i in zip(names, ids, strict=True) if stream in (name, i)]
    if stream is not None and not wanted:
        raise BadInput(place, f"has no stream {stream!r}", f"its streams are {', '.join(names)}")
    found = []
    for number in wanted or ids:
        with contextlib.suppress(Exception):  # a stream that cannot be opened is none of voltages
            opened = read(place, stream_id=number, **options)
            _set_open_ephys_probe(opened, place)
            if wanted or _is_voltage(opened):
                found.append(opened)
    if not found:
        read(place, stream_id=(wanted or ids)[0], **options)  # says why
        raise BadInput(place, "holds no stream of voltages", f"its streams are {', '.join(names)}")
    found.sort(key=lambda one: one.get_sampling_frequency(), reverse=purpose == "spikes")
    chosen = next((one for one in found if one.get_sampling_frequency() >= 500), found[0])
    if len(found) == 1:
        return chosen, ()
    probed = [one for one in found if one.has_probe() and one.get_num_channels() == chosen.get_num_channels()]
    if probed and not chosen.has_probe():  # the LFP of a probe whose geometry stands with its wide band
        chosen.set_probegroup(probed[0].get_probegroup())
    return chosen, (f"{chosen.stream_name} is read, of the streams {', '.join(names)}; source.stream names another",)


def _streams(read: Any, place: Path, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    from spikeinterface.extractors import neoextractors

    if not hasattr(read, "get_streams"):  # two formats of Open Ephys share a function
        legacy = next(place.glob("*.continuous"), None) is not None
        kind = "OpenEphysLegacyRecordingExtractor" if legacy else "OpenEphysBinaryRecordingExtractor"
        read = getattr(neoextractors, kind)
    names, ids = read.get_streams(place, **options)
    return list(names), list(ids)


def _set_open_ephys_probe(recording: Any, place: Path) -> None:
    """The probe in ``settings.xml`` where the file of that experiment alone, ``settings_<n>.xml``, is missing."""
    from probeinterface import read_openephys_neuropixels

    settings = next(
        (f / "settings.xml" for f in (place, *place.parents[:3], *place.glob("*/")) if (f / "settings.xml").is_file()),
        None,
    )
    if settings is None or recording.has_probe() or "OpenEphys" not in type(recording).__name__:
        return
    name = recording.stream_name.rpartition("#")[2]
    with contextlib.suppress(Exception):  # settings without a probe of that name
        recording.set_probe(read_openephys_neuropixels(settings_file=settings, stream_name=name))


def _is_voltage(recording: Any) -> bool:
    units = recording.get_property("physical_unit")
    name = str(getattr(recording, "stream_name", "")).lower()
    auxiliary = any(word in name for word in ("sync", "aux", "adc", "digital", "supply", "nidq", "temperature"))
    return not auxiliary and (units is None or bool(set(units) & (_VOLTS | {""})))  # neo leaves out Plexon's


def adapt(recording: Any, path: Path, source_format: str, *, warnings: Sequence[str] = ()) -> ExtracellularRecording:
    """A SpikeInterface recording as ours; several segments are placed on their common clock.

    Channels are sorted by shank, and within a shank by depth where contacts have positions.
    """
    fs_hz = float(recording.get_sampling_frequency())
    fs_hz = round(fs_hz) if abs(fs_hz - round(fs_hz)) < 1e-6 * fs_hz else fs_hz  # measured from time stamps
    ids = np.asarray(recording.channel_ids)
    counts = [int(recording.get_num_samples(s)) for s in range(recording.get_num_segments())]
    starts = [float(recording.get_start_time(segment_index=s) or 0.0) for s in range(len(counts))]
    pieces = [(0, count, _segment(recording, number)) for number, count in enumerate(counts)]
    runs, said = runs_on_clock(pieces, [round(start * fs_hz) for start in starts], fs_hz, "samples")
    shanks, positions = _groups(recording)
    order = np.lexsort((np.arange(len(ids)), positions[:, 1] if positions is not None else 0 * shanks, shanks))
    gain, offset, units = _scale(recording)
    stated = getattr(getattr(recording, "neo_reader", None), "raw_annotations", None) or {"blocks": [{}]}
    when = stated["blocks"][0].get("rec_datetime")
    opened = ExtracellularRecording(
        path=path,
        source_format=source_format,
        fs_hz=float(fs_hz),
        channel_ids=ids,
        runs=runs,
        shanks=shanks,
        dtype=np.dtype(recording.get_dtype()).newbyteorder("="),
        units=units,
        gain=gain,
        offset=offset,
        start_s=starts[0] or None,
        started=when if isinstance(when, datetime) else None,
        coordinates={} if positions is None else {"channel_locations": positions},
        upstream=f"{source_format}, {AS_SAVED}",
        warnings=(*warnings, *said),
        files=(path,),
    )
    return opened if np.array_equal(order, np.arange(len(ids))) else opened.select(order)


def _segment(recording: Any, number: int) -> Opener:
    return lambda: nullcontext(
        lambda first, last: np.asarray(recording.get_traces(segment_index=number, start_frame=first, end_frame=last))
    )


def _groups(recording: Any) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """``(channel,)`` number of the group, and ``(channel, 2)`` positions in µm."""
    positions = np.asarray(recording.get_channel_locations(), np.float64)[:, :2] if recording.has_probe() else None
    for name in ("group", "group_name", "probe", "shank"):
        values = recording.get_property(name)
        if values is not None:
            labels = [f"{int(v):06d}" if str(v).isdigit() else str(v) for v in values]
            return np.unique(labels, return_inverse=True)[1].astype(np.int64), positions
    return np.zeros(recording.get_num_channels(), np.int64), positions


def _scale(recording: Any) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None, str]:
    units = recording.get_property("physical_unit")
    if not recording.has_scaleable_traces() or (units is not None and not set(units) <= _VOLTS):
        return None, None, "unknown"
    gain = np.asarray(recording.get_property("gain_to_uV"), np.float32)
    return gain, np.asarray(recording.get_property("offset_to_uV"), np.float32), "uV"


def _nwb(path: Path, stream: str | None) -> ExtracellularRecording:
    import h5py
    from spikeinterface.extractors import read_nwb_recording
    from spikeinterface.extractors.nwbextractors import NwbRecordingExtractor

    series = stream
    if not series:
        found = NwbRecordingExtractor.fetch_available_electrical_series_paths(path)
        if len(found) > 1:
            raise BadInput(path, f"holds {len(found)} ElectricalSeries", f"choose source.stream= {', '.join(found)}")
        if not found:
            hint = "give raw or LFP traces; calcium traces: preprocess=cascade_spikes"
            raise BadInput(path, "holds no ElectricalSeries", hint)
        series = found[0]
    opened = adapt(read_nwb_recording(path, electrical_series_path=series), path, "NWB ElectricalSeries")
    with h5py.File(path, "r") as file:
        if "session_start_time" in file:
            opened = replace(opened, started=datetime.fromisoformat(file["session_start_time"].asstr()[()]))
        if filtering := file[series].attrs.get("filtering"):
            opened = replace(opened, upstream=f"NWB ElectricalSeries, filtering: {filtering}")
        if (times := file[series].get("timestamps")) is not None:
            opened = opened.at_times(np.asarray(times[:], np.float64))
    return opened


def _open_ephys_clock(opened: ExtracellularRecording, recording: Any) -> ExtracellularRecording:
    """The number of every sample in Open Ephys: where it jumps, samples were lost or recording was paused."""
    pieces, clock = list[tuple[int, int, Opener]](), list[int]()
    for segment, run in enumerate(opened.runs):
        info = recording.neo_reader._sig_streams[recording.block_index][segment][recording.stream_index]
        folder = Path(info["raw_filename"]).parent
        files = [file for file in (folder / "sample_numbers.npy", folder / "timestamps.npy") if file.is_file()]
        numbers = np.load(files[0], mmap_mode="r") if files else np.empty(0)
        if numbers.dtype.kind not in "iu" or len(numbers) != run.count:
            return opened
        cuts = [0]
        if int(numbers[-1]) - int(numbers[0]) != run.count - 1:
            cuts += (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
        pieces += [(a, b - a, run.opener) for a, b in zip(cuts, [*cuts[1:], run.count], strict=True)]
        clock += [int(numbers[cut]) for cut in cuts]
    runs, said = runs_on_clock(pieces, clock, opened.fs_hz, "samples")
    return replace(opened, runs=runs, warnings=said)


def _plexon(opened: ExtracellularRecording, recording: Any) -> ExtracellularRecording:
    """Plexon's blocks on their clock, in microvolts (Plexon, "PLX file format", 2003).

    neo does without the clock and the unit, and gives 0 for the last block.
    """
    reader, fs_hz, run = recording.neo_reader, opened.fs_hz, opened.runs[0]
    listed = {str(channel["name"]): channel for channel in reader.header["signal_channels"]}
    channels = [listed[str(name)] for name in opened.channel_ids]
    with opened.path.open("rb") as handle:
        head = handle.read(204)
    # From version 103 on, the header states the bits of continuous samples; neo takes those of spikes.
    wrong = 2.0 ** (head[202] - head[203]) if int.from_bytes(head[4:8], "little") >= 103 else 1.0
    gain = np.array([1e3 * wrong * float(channel["gain"]) for channel in channels], np.float32)
    blocks = reader._data_blocks[5][int(channels[0]["id"])]
    clock, firsts = blocks["timestamp"] * (fs_hz / reader._global_ssampling_rate), blocks["cumsum"]
    cuts = firsts[1:][np.abs(np.diff(clock) - np.diff(firsts)) > 1]
    place = dict(zip(firsts.tolist(), clock.tolist(), strict=True))

    def read(first: int, last: int) -> NDArray:
        values = np.empty((last - first, len(recording.channel_ids)), np.int16)
        for column, name in enumerate(recording.channel_ids):
            own = reader._data_blocks[5][int(listed[str(name)]["id"])]
            begin, end = np.searchsorted(own["cumsum"], (first, last - 1), side="right") - (1, 0)
            parts = [reader._memmap[one["pos"] : one["pos"] + one["size"]].view("<i2") for one in own[begin:end]]
            values[:, column] = np.concatenate(parts)[first - own["cumsum"][begin] :][: last - first]
        return values

    microvolts = replace(
        opened, runs=(Run(0, 0, run.count, lambda: nullcontext(read)),), gain=gain, offset=None, units="uV"
    )
    return microvolts.on_clock(cuts, place.__getitem__, start_s=float(clock[0]) / fs_hz or None)


def _intan_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.rh[ds]"))
    if len(files) > 1:
        raise BadInput(path, f"holds {len(files)} Intan files", "give one of them")
    return files[0]
