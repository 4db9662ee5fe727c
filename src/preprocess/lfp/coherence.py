"""Coherence over time between chosen channels of a session, of one shank or of two."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp import parameters as lfp_parameters
from src.preprocess.lfp.npz_writer import NpzWriter, deflate
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.recordings.extracellular.channels import ChannelMajor, channel_major
from src.recordings.extracellular.traces import Traces, open_traces
from src.signals import BadInput
from src.storage.step import CachedStep

_CHANNEL = re.compile(r"sh(?P<shank>\d+):(?P<id>.+)")


class Site(NamedTuple):
    """A channel of a session, written ``sh<k>:<channel id>``."""

    shank: int
    channel: str

    def __str__(self) -> str:
        return f"sh{self.shank}:{self.channel}"


def parse_pairs(pairs: Sequence[Sequence[str]]) -> list[tuple[Site, Site]]:
    """Pairs of channels as the configuration gives them.

    Raises
    ------
    BadInput
        If one is not written ``[sh<k>:<id>, sh<k>:<id>]``.
    """
    return [_pair(pair) for pair in pairs]


def coherence_stage() -> CachedStep:
    """The stage; its parameters are a spectrogram's, with ``pairs``, ``coherence_window_s`` and ``label``."""
    return CachedStep("lfp_coherence", 2, run)


def run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write ``<label>_coherence.npz``.

    Magnitude-squared coherence |Sxy|²/(Sxx·Syy), spectra averaged over the frames of consecutive windows
    (Welch 1967; Carter 1987, Proc. IEEE 75:236). Frames that are masked in either channel do not count;
    a window with fewer than two frames left is NaN.

    Parameters
    ----------
    inputs
        ``{"sh<k>": file}`` for every shank in ``pairs``.
    """
    pairs = parse_pairs(params["pairs"])
    numbered = {int(name.removeprefix("sh")): path for name, path in inputs.items()}
    shanks = {k: open_traces(path, params["sampling_rate_hz"], k) for k, path in numbered.items()}
    fs_hz, n_samples, warnings = _common_clock(shanks)
    plan = lfp_parameters.plan(params, fs_hz)
    frames = max(2, round(params["coherence_window_s"] * fs_hz / plan.hop))
    n_windows = plan.n_frames(n_samples) // frames if n_samples >= plan.nperseg else 0
    if not n_windows:
        problem = f"the recording is shorter than one window of {params['coherence_window_s']:g} s"
        raise BadInput("coherence_window_s", problem, "shorten it")
    fmax_hz = params["fmax_hz"] or np.inf
    freqs = plan.freqs[plan.freqs <= fmax_hz * (1 + 1e-12)]
    centres = plan.times(n_windows * frames).reshape(n_windows, frames).mean(axis=1)
    columns = {site: _column(shanks[site.shank], site) for pair in pairs for site in pair}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        channels = {
            shank: stack.enter_context(
                channel_major(traces, out_dir, pool, sorted({columns[s] for s in columns if s.shank == shank}))
            )
            for shank, traces in shanks.items()
        }
        with NpzWriter(out_dir / f"{params['label']}_coherence.npz") as file:
            file.add("freqs", freqs.astype(np.float32))
            file.add("times", centres)
            file.add("pairs", np.array([[str(one), str(other)] for one, other in pairs]))
            file.add("sampling_rate", fs_hz)
            file.add("spec_params", json.dumps({"frames_per_window": frames, **params}, sort_keys=True))
            shape = (len(pairs), len(freqs), n_windows)
            with file.member("coherence", shape, np.dtype(np.float32)) as member:
                for pair in pairs:
                    signals = [(channels[site.shank], columns[site]) for site in pair]
                    values = _coherence(plan, signals, len(freqs), frames, n_windows)
                    member.append(deflate(values.data))
    independent = frames * plan.hop / plan.nperseg
    return {
        "axes": ["pair", "frequency", "time"],
        "shape": list(shape),
        "units": "1",
        "window_s": frames * plan.hop / fs_hz,
        "frames_per_window": frames,
        # Unrelated channels are not at 0 but below this in 95 of 100 windows.
        "level_of_chance": round(1 - 0.05 ** (1 / max(independent - 1, 0.1)), 4),
        "resolution_hz": plan.resolution_hz,
        "bin_spacing_hz": plan.spacing_hz,
        "warnings": warnings,
    }


def _coherence(
    plan: SpectrogramPlan, signals: Sequence[tuple[ChannelMajor, int]], n_freqs: int, frames: int, n_windows: int
) -> NDArray[np.float32]:
    values = np.full((n_freqs, n_windows), np.nan, dtype=np.float32)
    for window in range(n_windows):
        stretch = plan.stretch(window * frames, (window + 1) * frames)
        x, y = (plan.spectra(channels.read(column, stretch))[:, :n_freqs] for channels, column in signals)
        whole = np.isfinite(x[0, 0]) & np.isfinite(y[0, 0])
        if whole.sum() < 2:
            continue
        x, y = x[:, :, whole].astype(np.complex128), y[:, :, whole].astype(np.complex128)
        cross = (x * y.conj()).sum(axis=(0, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            values[:, window] = np.abs(cross) ** 2 / ((np.abs(x) ** 2).sum((0, 2)) * (np.abs(y) ** 2).sum((0, 2)))
    return values


def _pair(pair: Sequence[str]) -> tuple[Site, Site]:
    matches = [] if isinstance(pair, str) else [_CHANNEL.fullmatch(str(name)) for name in pair]
    if len(matches) != 2 or None in matches:
        raise BadInput(
            "coherence", f"{pair!r} is not a pair of channels", "write [[sh0:12,sh3:7],[…]] (shank:channel id)"
        )
    one, other = (Site(int(match["shank"]), match["id"]) for match in matches if match is not None)
    return one, other


def _column(traces: Traces, site: Site) -> int:
    found = np.flatnonzero(traces.channel_ids.astype(str) == site.channel)
    if not len(found):
        known = ", ".join(map(str, traces.channel_ids[:8])) + (", …" if traces.n_channels > 8 else "")
        raise BadInput(traces.path, f"has no channel {site.channel} ({site})", f"its channel_ids are {known}")
    return int(found[0])


def _common_clock(shanks: Mapping[int, Traces]) -> tuple[float, int, list[str]]:
    first = next(iter(shanks.values()))
    for traces in shanks.values():
        if traces.fs_hz != first.fs_hz or (traces.start_s or 0.0) != (first.start_s or 0.0):
            problem = f"{traces.path.name} and {first.path.name} do not share a sampling rate and a start"
            raise BadInput(first.path.parent, problem, "choose channels that were recorded together")
    lengths = {traces.n_samples for traces in shanks.values()}
    warnings = [f"shanks have {sorted(lengths)} samples; the shortest counts"] if len(lengths) > 1 else []
    return first.fs_hz, min(lengths), warnings
