"""Coherence over time between chosen channels of a session, of one shank or of two."""

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import NDArray

from src.preprocess.lfp.parameters import plan as plan_of
from src.preprocess.lfp.parameters import resolution_warnings
from src.preprocess.spectrogram import SpectrogramPlan
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.recording import ExtracellularRecording, channel_rows
from src.signals import BadInput, SourceOptions
from src.storage.step import CachedStep

_CHANNEL = re.compile(r"sh(?P<shank>\d+):(?P<id>.+)")


class Site(NamedTuple):
    """A channel of a session, written ``sh<k>:<channel id>``."""

    shank: int
    channel: str

    def __str__(self) -> str:
        return f"sh{self.shank}:{self.channel}"


Pair = tuple[Site, Site]


def parse_pairs(pairs: Sequence[Sequence[str]]) -> list[Pair]:
    """Pairs of channels as the configuration gives them.

    Raises
    ------
    BadInput
        If one is not written ``[sh<k>:<id>, sh<k>:<id>]``.
    """
    parsed = list[Pair]()
    for pair in pairs:
        matches = [] if isinstance(pair, str) else [_CHANNEL.fullmatch(str(name)) for name in pair]
        sites = [Site(int(match["shank"]), match["id"]) for match in matches if match is not None]
        if not len(sites) == len(matches) == 2:
            hint = "write [[sh0:12,sh3:7],[…]] (shank:channel id)"
            raise BadInput("coherence", f"{pair!r} is not a pair of channels", hint)
        parsed.append((sites[0], sites[1]))
    return parsed


class Windows(NamedTuple):
    """Coherence of one pair in consecutive windows.

    Attributes
    ----------
    squared
        ``(frequency, window)`` magnitude-squared coherence |Sxy|²/(Sxx·Syy), 0 to 1.
    imaginary
        ``(frequency, window)`` imaginary part of the coherency Sxy/√(Sxx·Syy), -1 to 1: what two channels share with
        a delay, so neither a common reference nor volume conduction (Nolte et al. 2004, Clin Neurophysiol 115:2292).
    frames
        ``(window,)`` frames without missing samples in either channel.
    """

    squared: NDArray[np.float32]
    imaginary: NDArray[np.float32]
    frames: NDArray[np.int64]


def windowed_coherence(plan: SpectrogramPlan, x: Any, y: Any, size: tuple[int, int, int]) -> Windows:
    """Coherence, spectra averaged over the frames of consecutive windows (Welch 1967; Carter 1987, Proc. IEEE 75:236).

    Parameters
    ----------
    x, y
        Functions that give a stretch (slice of samples) of each channel.
    size
        Frequencies kept, frames in a window, and windows.
    """
    n_freqs, frames, n_windows = size
    squared, imaginary = (np.full((n_freqs, n_windows), np.nan, np.float32) for _ in range(2))
    counts = np.zeros(n_windows, np.int64)
    for window in range(n_windows):
        stretch = plan.stretch(window * frames, (window + 1) * frames)
        one, other = (plan.spectra(read(stretch))[:, :n_freqs] for read in (x, y))
        whole = np.isfinite(one[0, 0]) & np.isfinite(other[0, 0])
        counts[window] = whole.sum()
        if counts[window] < 2:
            continue
        one, other = one[:, :, whole].astype(np.complex128), other[:, :, whole].astype(np.complex128)
        power = (np.abs(one) ** 2).sum((0, 2)) * (np.abs(other) ** 2).sum((0, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            coherency = (one * other.conj()).sum(axis=(0, 2)) / np.sqrt(power)
        squared[:, window], imaginary[:, window] = np.abs(coherency) ** 2, coherency.imag
    return Windows(squared, imaginary, counts)


def independent_averages(plan: SpectrogramPlan, frames: int) -> float:
    """How many independent spectra the average over overlapping frames and tapers is worth.

    Two frames ``m`` hops apart share the squared correlation of their tapers at that lag (Welch 1967, eq. 17).
    """
    tapers = plan.tapers / np.sqrt((plan.tapers**2).sum(axis=1, keepdims=True))
    n_tapers, length = tapers.shape
    total = 0.0
    for lag in range(min(frames, -(-length // plan.hop))):
        shift = lag * plan.hop
        shared = tapers[:, : length - shift] @ tapers[:, shift:].T
        total += (1 if lag == 0 else 2) * (frames - lag) * float((shared**2).sum())
    return (frames * n_tapers) ** 2 / total


def chance_levels(averages: float) -> tuple[float, float]:
    """What unrelated channels stay below in 95 of 100 windows: squared coherence, size of its imaginary part.

    Of ``n`` independent averages the squared coherence of unrelated signals is distributed as Beta(1, n-1), the
    square of the imaginary part as Beta(1/2, n-1/2).
    """
    if averages <= 1:
        return 1.0, 1.0
    squared = 1 - 0.05 ** (1 / (averages - 1))
    return float(squared), float(np.sqrt(scipy.special.betaincinv(0.5, averages - 0.5, 0.95)))


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write ``<label>_coherence.npz`` from ``{"sh<k>": file}`` for every shank in ``pairs``."""
    pairs = parse_pairs(params["pairs"])
    source = SourceOptions(**params["source"])
    shanks = {int(name.removeprefix("sh")): open_recording(path, source) for name, path in inputs.items()}
    fs_hz, n_samples, warnings = _common_clock(shanks)
    plan = plan_of(params, fs_hz)
    frames, n_windows = _windows(plan, params["coherence_window_s"], n_samples, fs_hz)
    freqs = plan.freqs[plan.freqs <= (params["fmax_hz"] or np.inf) * (1 + 1e-12)]
    size = len(freqs), frames, n_windows
    columns = {site: column_of(shanks[site.shank], site) for pair in pairs for site in pair}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        rows = {
            shank: stack.enter_context(
                channel_rows(recording, out_dir, pool, [columns[s] for s in columns if s.shank == shank])
            )
            for shank, recording in shanks.items()
            if any(site.shank == shank for site in columns)
        }
        found = [
            windowed_coherence(plan, partial(rows[a.shank], columns[a]), partial(rows[b.shank], columns[b]), size)
            for a, b in pairs
        ]
    averages = independent_averages(plan, frames)
    level, imaginary_level = chance_levels(averages)
    centres = plan.times(n_windows * frames).reshape(n_windows, frames).mean(axis=1)
    np.savez_compressed(
        out_dir / f"{params['label']}_coherence.npz",
        freqs=freqs.astype(np.float32),
        times=centres,
        pairs=np.array([[str(one), str(other)] for one, other in pairs]),
        sampling_rate=fs_hz,
        spec_params=json.dumps({"frames_per_window": frames, **params}, sort_keys=True),
        coherence=np.stack([one.squared for one in found]),
        imaginary_coherence=np.stack([one.imaginary for one in found]),
        frames=np.stack([one.frames for one in found]),
        level_of_chance=level,
        imaginary_level_of_chance=imaginary_level,
    )
    masked = [str(pair) for pair, one in zip(pairs, found, strict=True) if (one.frames < frames).any()]
    if masked:
        warnings.append(f"{len(masked)} pairs have windows with missing frames: their level of chance is higher")
    return {
        "axes": ["pair", "frequency", "time"],
        "shape": [len(pairs), len(freqs), n_windows],
        "units": "1",
        "window_s": frames * plan.hop / fs_hz,
        "frames_per_window": frames,
        "independent_averages": round(averages, 2),
        "level_of_chance": round(level, 4),
        "imaginary_level_of_chance": round(imaginary_level, 4),
        "resolution_hz": plan.resolution_hz,
        "bin_spacing_hz": plan.spacing_hz,
        "warnings": [*warnings, *resolution_warnings(plan)],
    }


def _windows(plan: SpectrogramPlan, window_s: float, n_samples: int, fs_hz: float) -> tuple[int, int]:
    """Frames of the spectrogram in a window of coherence, and how many windows there are."""
    frames = round(window_s * fs_hz / plan.hop)
    if frames < 2:
        problem = f"{window_s:g} s hold fewer than two windows of the spectrogram"
        raise BadInput("coherence_window_s", problem, "give seconds, such as 30")
    n_windows = plan.n_frames(n_samples) // frames if n_samples >= plan.nperseg else 0
    if not n_windows:
        problem = f"the recording is shorter than one window of {window_s:g} s"
        raise BadInput("coherence_window_s", problem, "shorten it")
    return frames, n_windows


def column_of(traces: ExtracellularRecording, site: Site) -> int:
    """The place of a channel in the recording of its shank; :class:`BadInput` if it is not there."""
    found = np.flatnonzero(traces.channel_ids.astype(str) == site.channel)
    if not len(found):
        known = ", ".join(map(str, traces.channel_ids[:8])) + (", …" if traces.n_channels > 8 else "")
        raise BadInput(traces.path, f"has no channel {site.channel} ({site})", f"its channel_ids are {known}")
    return int(found[0])


def _common_clock(shanks: Mapping[int, ExtracellularRecording]) -> tuple[float, int, list[str]]:
    first = next(iter(shanks.values()))
    for traces in shanks.values():
        if traces.fs_hz != first.fs_hz or (traces.start_s or 0.0) != (first.start_s or 0.0):
            problem = f"{traces.path.name} and {first.path.name} do not share a sampling rate and a start"
            raise BadInput(first.path.parent, problem, "choose channels that were recorded together")
    lengths = {traces.n_samples for traces in shanks.values()}
    warnings = [f"shanks have {sorted(lengths)} samples; the shortest counts"] if len(lengths) > 1 else []
    return first.fs_hz, min(lengths), warnings


COHERENCE = CachedStep("lfp_coherence", 5, _run)
"""Inputs ``{"sh<k>": trace file}``; parameters :meth:`SpectrogramParams.transform`, ``pairs``, ``coherence_window_s``,
``source`` and ``label``."""
