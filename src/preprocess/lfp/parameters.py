"""Parameters of an LFP spectrogram: two presets, and whatever the user puts in place of their values.

Lengths may be given in samples or in seconds; seconds become samples when the sampling rate is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.signals import BadInput

DEFAULT = "scipy_compat"

PRESETS: dict[str, dict[str, Any]] = {
    # The parameters of the original pipeline, and SciPy's defaults where it states none.
    "scipy_compat": {
        "window": ["tukey", 0.25],
        "nperseg": 1024,
        "window_s": None,
        "noverlap": None,
        "overlap_s": None,
        "nfft": None,
        "zero_padding": 2.0,
        "detrend": "constant",
        "scaling": "density",
        "fmax_hz": None,
        "log_bins": None,
        "format": "npz",
        "decibel": False,
        "dtype": "float32",
        "band_powers": False,
    },
    # What scoring looks at: 2 s divide 4-s and 30-s epochs, Hann keeps slow waves out of the other bands.
    "sleep": {
        "window": "hann",
        "nperseg": None,
        "window_s": 2.0,
        "noverlap": None,
        "overlap_s": None,
        "nfft": None,
        "zero_padding": 1.0,
        "detrend": "constant",
        "scaling": "density",
        "fmax_hz": 64.0,
        "log_bins": None,
        "format": "hdf5",
        "decibel": True,
        "dtype": "float16",
        "band_powers": True,
    },
}

OVERLAP = 0.75
"""Share of a window that the next one covers, where no overlap is given."""

FORMATS = ("npz", "hdf5")
DTYPES = ("float32", "float16")
_EITHER = (("nperseg", "window_s"), ("noverlap", "overlap_s"))


def resolve(preset: str, overrides: Mapping[str, Any], bands: Mapping[str, Any]) -> dict[str, Any]:
    """The full parameters of a spectrogram stage.

    Parameters
    ----------
    preset
        A key of :data:`PRESETS`.
    overrides
        Values in place of the preset's; ``None`` leaves the preset's.
    bands
        Name and edges in Hz of the bands whose power is derived; ``None`` in place of the edges leaves one out.

    Returns
    -------
    Plain values, nothing left out: what a stage's key is made of.

    Raises
    ------
    BadInput
        For an unknown preset, two lengths for one thing, or values that do not go together.
    """
    if preset not in PRESETS:
        raise BadInput("preset", f"{preset!r} is not known", f"choose one of {', '.join(PRESETS)}")
    given = {name: value for name, value in overrides.items() if value is not None}
    for samples, seconds in _EITHER:
        if samples in given and seconds in given:
            raise BadInput(samples, f"{samples}={given[samples]} and {seconds}={given[seconds]}", "give one of the two")
    params = dict(PRESETS[preset])
    for samples, seconds in _EITHER:
        if samples in given or seconds in given:
            params |= {samples: None, seconds: None}
    params |= given
    params["window"] = params["window"] if isinstance(params["window"], str) else list(params["window"])
    if params["fmax_hz"] is not None and not np.isfinite(params["fmax_hz"]):
        params["fmax_hz"] = None
    for name, known in (("format", FORMATS), ("dtype", DTYPES)):
        if params[name] not in known:
            raise BadInput(name, f"{params[name]!r} is not known", f"choose one of {', '.join(known)}")
    if params["dtype"] == "float16" and not params["decibel"]:
        raise BadInput("dtype", "float16 cannot hold linear power", "set decibel=true or dtype=float32")
    params["bands"] = _bands(bands) if params["band_powers"] else {}
    return params


def plan(params: Mapping[str, Any], fs_hz: float) -> SpectrogramPlan:
    """The spectrogram of these parameters at a sampling rate; all bins, whatever is kept of them.

    Raises
    ------
    BadInput
        If a parameter makes no sense.
    """
    nperseg = _samples("window_s", params["nperseg"], params["window_s"], fs_hz)
    noverlap = _samples("overlap_s", params["noverlap"], params["overlap_s"], fs_hz)
    if nperseg is None:
        raise BadInput("nperseg", "no window length", "give nperseg or window_s")
    if noverlap is None:
        noverlap = nperseg - max(1, round((1 - OVERLAP) * nperseg))
    return SpectrogramPlan(
        fs_hz=fs_hz,
        window=params["window"],
        nperseg=nperseg,
        noverlap=noverlap,
        nfft=params["nfft"] or round(params["zero_padding"] * nperseg),
        detrend=params["detrend"],
        scaling=params["scaling"],
    )


def check(params: dict[str, Any]) -> None:
    """Refuse at once what no recording's sampling rate could mend.

    Raises
    ------
    BadInput
        If a parameter makes no sense.
    """
    if params["nperseg"] is not None and params["overlap_s"] is None:
        plan(params, 1.0)
    elif params["nperseg"] is None:
        plan(params | {"nperseg": 8, "window_s": None, "noverlap": None, "overlap_s": None, "nfft": None}, 1.0)


def _samples(name: str, samples: int | None, seconds: float | None, fs_hz: float) -> int | None:
    if samples is not None or seconds is None:
        return samples
    if not (np.isfinite(seconds) and seconds >= 0):
        raise BadInput(name, f"{seconds} s", "give a length in seconds")
    return round(seconds * fs_hz)


def _bands(bands: Mapping[str, Any]) -> dict[str, list[float]]:
    checked = {}
    for name, edges in bands.items():
        if edges is None:
            continue
        try:
            low, high = map(float, edges)
        except (TypeError, ValueError):
            low, high = np.nan, np.nan
        if not 0 <= low < high:
            raise BadInput("bands", f"{name}: {edges}", "give a lower and a higher frequency in Hz")
        checked[name] = [low, high]
    if not checked:
        raise BadInput("bands", "none given", "name at least one, or set band_powers=false")
    return checked
