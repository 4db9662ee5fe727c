"""Tiny recordings in the vendors' formats, written after their public descriptions; 4 channels of int16 samples."""

import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FS = 30_000


def counts(n_samples: int, n_channels: int = 4, seed: int = 0) -> NDArray[np.int16]:
    """``(time, channel)`` samples that differ everywhere."""
    return np.random.default_rng(seed).integers(-3000, 3000, (n_samples, n_channels)).astype("<i2")


def written(path: Path, content: bytes) -> Path:
    """A new file in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_rec(path: Path, samples: NDArray, groups, clock=None, *, gain: float | None = 0.195, chip: int = 4) -> Path:
    """SpikeGadgets: an XML header, then packets 0x55 | one byte of a device | uint32 clock | int16 channels."""
    scale = "" if gain is None else f' spikeScalingToUv="{gain}"'
    trodes = "".join(
        f'<SpikeNTrode id="{number + 1}"{scale}>'
        + "".join(f'<SpikeChannel hwChan="{channel}"/>' for channel in group)
        + "</SpikeNTrode>\n"
        for number, group in enumerate(groups)
    )
    n_samples, n_channels = samples.shape
    header = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Configuration>\n<GlobalConfiguration systemTimeAtCreation="1"/>\n'
        f'<HardwareConfiguration samplingRate="{FS}" numChannels="{n_channels}">'
        '<Device name="Controller_DIO" numBytes="1" available="1"/></HardwareConfiguration>\n'
        f'<SpikeConfiguration chanPerChip="{chip}" device="intan" categories="">\n{trodes}</SpikeConfiguration>\n'
        "</Configuration>\n"
    )
    fields = [("sync", "u1"), ("dio", "u1"), ("clock", "<u4"), ("data", "<i2", n_channels)]
    packets = np.zeros(n_samples, np.dtype(fields))
    packets["sync"], packets["data"] = 0x55, samples
    packets["clock"] = np.arange(n_samples) if clock is None else np.asarray(clock, np.uint64) % 2**32
    return written(path, header.encode() + packets.tobytes())


def write_neuroscope(
    folder: Path, samples: NDArray, suffix: str, groups, skip=(), *, lfp_hz: float | None = 1250
) -> Path:
    """NeuroScope: all channels in turn, and an XML file of the session's parameters beside them."""
    listed = "".join(
        "<group>" + "".join(f'<channel skip="{int(c in skip)}">{c}</channel>' for c in group) + "</group>"
        for group in groups
    )
    lfp = "" if lfp_hz is None else f"<fieldPotentials><lfpSamplingRate>{lfp_hz:g}</lfpSamplingRate></fieldPotentials>"
    xml = (
        '<?xml version="1.0"?><parameters><acquisitionSystem><nBits>16</nBits>'
        f"<nChannels>{samples.shape[1]}</nChannels><samplingRate>20000</samplingRate><voltageRange>20</voltageRange>"
        f"<amplification>1000</amplification><offset>0</offset></acquisitionSystem>{lfp}"
        f"<anatomicalDescription><channelGroups>{listed}</channelGroups></anatomicalDescription></parameters>"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{folder.name}.xml").write_text(xml)
    return written(folder / f"{folder.name}{suffix}", samples.tobytes())


def write_spikeglx(folder: Path, samples: NDArray, band: str, *, first_sample: int = 0, trigger: int = 0) -> Path:
    """SpikeGLX: samples of all channels and the sync in turn, with the meta file of an imec probe."""
    n_samples, n_channels = samples.shape
    rate = 30_000 if band == "ap" else 2_500
    count = (n_channels, 0, 1) if band == "ap" else (0, n_channels, 1)
    stored = np.concatenate([samples, np.zeros((n_samples, 1), "<i2")], axis=1)
    name = f"run_g0_t{trigger}.imec0.{band}"
    table = "".join(f"({c} 0 0 500 250 1)" for c in range(n_channels))
    maps = "".join(f"({band.upper()}{c};{c}:{c})" for c in range(n_channels)) + f"(SY0;{n_channels}:{n_channels})"
    meta = {
        "fileName": f"{name}.bin",
        "imSampRate": rate,
        "nSavedChans": n_channels + 1,
        "snsApLfSy": ",".join(map(str, count)),
        "acqApLfSy": ",".join(map(str, count)),
        "fileSizeBytes": stored.nbytes,
        "fileTimeSecs": n_samples / rate,
        "firstSample": first_sample,
        "typeThis": "imec",
        "imAiRangeMax": 0.6,
        "imAiRangeMin": -0.6,
        "imMaxInt": 512,
        "imDatPrb_type": 0,
        "imDatPrb_pn": "PRB_1_4_0480_1",
        "imDatPrb_sn": 1,
        "snsSaveChanSubset": f"0:{n_channels}",
        "~imroTbl": f"(0,{n_channels}){table}",
        "~snsChanMap": f"({n_channels},0,1){maps}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.meta").write_text("".join(f"{key}={value}\n" for key, value in meta.items()))
    return written(folder / f"{name}.bin", stored.astype("<i2").tobytes())


def write_open_ephys(folder: Path, samples: NDArray, numbers: NDArray | None = None, fs: float = FS) -> Path:
    """Open Ephys binary: ``structure.oebin``, ``continuous.dat`` and the number of every sample."""
    n_samples, n_channels = samples.shape
    recording = folder / "Record Node 101" / "experiment1" / "recording1"
    stream = recording / "continuous" / "Rhythm_FPGA-100.0"
    stream.mkdir(parents=True)
    channels = [
        {"channel_name": f"CH{c + 1}", "bit_volts": 0.195, "units": "uV", "source_processor_index": c}
        for c in range(n_channels)
    ]
    info = {
        "folder_name": "Rhythm_FPGA-100.0/",
        "sample_rate": fs,
        "source_processor_name": "Rhythm FPGA",
        "source_processor_id": 100,
        "source_processor_sub_idx": 0,
        "recorded_processor": "Record Node",
        "recorded_processor_id": 101,
        "num_channels": n_channels,
        "channels": channels,
    }
    structure = {"GUI version": "0.6.0", "continuous": [info], "events": [], "spikes": []}
    (recording / "structure.oebin").write_text(json.dumps(structure))
    (stream / "continuous.dat").write_bytes(samples.tobytes())
    numbers = np.arange(n_samples) if numbers is None else numbers
    np.save(stream / "sample_numbers.npy", np.asarray(numbers, np.int64))
    np.save(stream / "timestamps.npy", np.asarray(numbers, np.float64) / fs)
    return folder


def write_mcs(folder: Path, samples: np.ndarray) -> Path:
    """Multi Channel Systems' binary export: a header in text, then counts above the converter's zero."""
    header = ["MC_DataTool binary conversion", "Version 2.6.15", "Sample rate = 25000", "ADC zero = 32768"]
    names = ";".join(f"El_{12 + channel}" for channel in range(samples.shape[1]))
    text = "\r\n".join([*header, "El = 0.25µV/AD", f"Streams = {names}", "EOH", ""])
    return written(folder / "a.raw", text.encode("cp1252") + (samples.astype(np.int32) + 32768).astype("<u2").tobytes())


def write_trodes(folder: Path, samples: NDArray, name: str = "rat", clock: NDArray | None = None) -> Path:
    """Trodes' export of LFP: a file per channel, and the clock in another."""

    def head(**fields) -> bytes:
        lines = {"Byte_order": "little endian", "Original_file": "rat.rec", "Clockrate": FS} | fields
        text = "".join(f"{key}: {value}\n" for key, value in lines.items())
        return f"<Start settings>\n{text}<End settings>\n".encode()

    folder.mkdir(parents=True)
    for channel in range(samples.shape[1]):
        own: dict = {"Decimation": 20, "ntrode_ID": channel // 2 + 1, "ntrode_channel": channel % 2 + 1}
        own |= {"Voltage_scaling": 0.195, "Fields": "<voltage int16>"}
        file = folder / f"{name}.LFP_nt{channel // 2 + 1}ch{channel % 2 + 1}.dat"
        file.write_bytes(head(**own) + samples[:, channel].tobytes())
    times = np.arange(len(samples)) * 20 if clock is None else clock
    stamps = head(Decimation=20, Fields="<time uint32>") + np.asarray(times, "<u4").tobytes()
    (folder / f"{name}.timestamps.dat").write_bytes(stamps)
    return folder / f"{name}.LFP_nt1ch1.dat"


def write_nwb(path: Path, samples: NDArray, *, timestamps: NDArray | None = None) -> Path:
    """NWB: one ElectricalSeries of two groups of electrodes."""
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import ElectricalSeries

    file = NWBFile("test", "id", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    device = file.create_device("probe")
    for number in range(2):
        group = file.create_electrode_group(f"shank{number}", "a shank", "CA1", device)
        for _ in range(2):
            file.add_electrode(group=group, location="CA1")
    region = file.create_electrode_table_region([0, 1, 2, 3], "all")
    when = {"rate": 1000.0, "starting_time": 5.0} if timestamps is None else {"timestamps": timestamps}
    series = ElectricalSeries(
        name="lfp", data=samples, electrodes=region, conversion=1e-6, filtering="0.1-300 Hz", **when
    )
    file.add_acquisition(series)
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


def _intan_text(value: str) -> bytes:
    raw = value.encode("utf-16-le")
    return struct.pack("<I", len(raw)) + raw


def _write_intan(path: Path, head: bytes, extra: bytes, samples: NDArray, clock: NDArray | None, tail: int) -> Path:
    """Four channels of two ports behind a header, then blocks of 128 samples: clock, amplifier channels, the rest."""
    n_samples, each = len(samples), samples.shape[1] // 2
    head += struct.pack("<h", 2)
    for port in "AB":
        head += _intan_text(f"Port {port}") + _intan_text(port) + struct.pack("<hhh", 1, each, each)
        for c in range(each):
            head += _intan_text(f"{port}-{c:03d}") * 2 + struct.pack("<5h", c, c, 0, 1, c) + extra
    clock, body = np.arange(n_samples) if clock is None else clock, b""
    for first in range(0, n_samples, 128):
        part = slice(first, first + 128)
        body += np.asarray(clock[part], "<i4").tobytes()
        body += (samples[part].T.astype(np.int32) + 32768).astype("<u2").tobytes() + bytes(tail)
    return written(path, head + body)


def write_intan(path: Path, samples: NDArray, clock: NDArray | None = None) -> Path:
    """Intan RHD 2.0."""
    head = struct.pack("<Ihhf", 0xC6912702, 2, 0, FS)
    head += struct.pack("<h6f", 1, 1.0, 0.1, 7500.0, 1.0, 0.1, 7500.0) + struct.pack("<h2f", 0, 1000.0, 1000.0)
    head += _intan_text("") * 3 + struct.pack("<hh", 0, 0) + _intan_text("n/a")
    return _write_intan(path, head, struct.pack("<5h2f", 0, 0, 0, 0, 0, 0.0, 0.0), samples, clock, 0)


def write_intan_rhs(path: Path, samples: NDArray, clock: NDArray | None = None) -> Path:
    """Intan RHS 3.0; the stimulation of every channel stands behind the samples of a block."""
    head = struct.pack("<IhhfH8f", 0xD69127AC, 3, 0, FS, 1, 1.0, 0.1, 1.0, 7500.0, 1.0, 0.1, 1.0, 7500.0)
    head += struct.pack("<h2f2h3f", 0, 1000.0, 1000.0, 0, 0, 1e-6, 1e-9, 0.0) + _intan_text("") * 3
    head += struct.pack("<hh", 0, 0) + _intan_text("n/a")
    extra = struct.pack("<6h2f", 0, 0, 0, 0, 0, 0, 0.0, 0.0)
    return _write_intan(path, head, extra, samples, clock, 2 * 128 * samples.shape[1])


def write_blackrock(path: Path, samples: NDArray, clock: NDArray | None = None) -> Path:
    """Blackrock NSx 2.3: header, a header per channel, then packets of samples with the clock of their first."""
    n_channels = samples.shape[1]
    size = 314 + 66 * n_channels
    head = struct.pack("<8sBBI16s256sII", b"NEURALCD", 2, 3, size, b"30 kS/s", b"", 1, FS)
    head += struct.pack("<8HI", 2026, 1, 5, 2, 3, 4, 5, 0, n_channels)
    for c in range(n_channels):
        name, corners = f"chan{c + 1}".encode(), (300, 1, 0, 7_500_000, 3, 1)
        head += struct.pack(
            "<2sH16sBB4h16sIIHIIH", b"CC", c + 1, name, 1, c, -32764, 32764, -8191, 8191, b"uV", *corners
        )
    clock = np.arange(len(samples)) if clock is None else clock
    cuts = [0, *(np.flatnonzero(np.diff(clock) != 1) + 1).tolist(), len(samples)]
    body = b"".join(
        struct.pack("<BII", 1, clock[first], last - first) + samples[first:last].tobytes()
        for first, last in pairwise(cuts)
    )
    return written(path, head + body)


def write_plexon(path: Path, samples: NDArray, clock: NDArray | None = None, fs: int = 1000) -> Path:
    """Plexon PLX 1.06: header, a header per slow channel, then blocks of one channel with the clock of their first."""
    n_samples, n_channels = samples.shape
    ad_hz, block = 40_000, 320
    head = struct.pack("<Ii128s5i", 0x58454C50, 106, b"", ad_hz, 0, 0, n_channels, 32)
    head += struct.pack(
        "<9id4B3H", 8, 2026, 1, 2, 3, 4, 5, 0, ad_hz, n_samples * ad_hz / fs, 1, 1, 12, 16, 3000, 5000, 1000
    )
    head += struct.pack("<18s18s10s", b"", b"", b"") + bytes(4 * (650 + 650)) + bytes(4 * 300)
    counts_of = np.zeros(212, "<i4")
    counts_of[:n_channels] = n_samples
    head += counts_of.tobytes()
    for c in range(n_channels):
        head += struct.pack("<32s6i128s28i", f"FP{c + 1:02d}".encode(), c, fs, 1, 1, 1000, 0, b"", *([0] * 28))
    clock, body = np.arange(n_samples) if clock is None else clock, b""
    for first in range(0, n_samples, block):
        for c in range(n_channels):
            part = samples[first : first + block, c]
            body += struct.pack("<hHIhhhh", 5, 0, int(clock[first]) * ad_hz // fs, c, 0, 1, len(part)) + part.tobytes()
    return written(path, head + body)
