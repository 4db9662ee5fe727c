"""YASA, a classifier that was trained on many laboratories (Vallat & Walker 2021, eLife 10:e70092), and when it scores.

The trees are those of the package ``yasa`` (BSD-3-Clause). Their features are computed here: the package needs true
microvolts, reads a gap as a flat signal, and takes ten CPU seconds to import.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.predict.sleep_input import YASA_LEAST_HZ
from src.predict.sleep_night import ScoredNight
from src.predict.sleep_statistics import mean_vote
from src.preprocess.sleep.bandpower import welch
from src.recordings.sleep.channels import resample
from src.signals import HUMAN_STAGES, UNSCORED, BadInput, Origin

_HZ, _EPOCH_S = 100.0, 30.0
"""Rate of the signal and length of the epochs that the trees know."""
YASA_ORIGIN = Origin(
    True,
    ("National Sleep Research Resource (CCSHS, CFS, CHAT, HomePAP, MESA, MrOS, SHHS)",),
    3000,
    30_000.0,
    "NSRR data use agreement; classifier BSD-3-Clause",
    "Vallat & Walker 2021, eLife 10:e70092; Zhang et al. 2018, J Am Med Inform Assoc 25:1351",
)
_BANDS_HZ = {
    "sdelta": (0.4, 1),
    "fdelta": (1, 4),
    "theta": (4, 8),
    "alpha": (8, 12),
    "sigma": (12, 16),
    "beta": (16, 30),
}
_FULL_HZ = 80.0
"""Least rate that holds all that the trees know."""
_LOW_UV = 16.0
"""Standard deviation (0.4 to 30 Hz) that the calmest twentieth of a recording's epochs is scaled to."""
_BLOCK, _MARGIN = 64, 412
_FLOOR = 1e-3
"""Least probability that a classifier may give a stage where two are averaged."""
_NAMES = {"W": "W", "N1": "N1", "N2": "N2", "N3": "N3", "R": "REM"}


def yasa_share(foreign: bool, readable: bool, scored: float, fs_hz: float) -> float:
    """The share that YASA has in the answer where the user says nothing.

    **The network scores the channels that it was trained on. All others are scored by the network and YASA together:
    the mean of their log-probabilities, in which YASA counts three times, or as much as the network below 80 Hz, where
    it lacks what it knew of the fast rhythms.** Where less than half of the recording is ``scored`` (a share), YASA
    scores alone, because the network needs the neighbours of an epoch. Where there is no EEG that YASA can read, the
    network scores alone.
    """
    if not (foreign and readable):
        return 0.0
    if scored < 0.5:
        return 1.0
    return 0.75 if fs_hz >= _FULL_HZ else 0.5


def with_yasa(scored: ScoredNight, foreign: Sequence[str], own: Sequence[str], asked: bool | None) -> ScoredNight:
    """A night that a network has scored, with YASA's part in the answer, and YASA's stages beside it if asked for.

    Parameters
    ----------
    foreign, own
        Channels of the night that the network was not trained on, and those that it was trained on.
    asked
        The option ``yasa``: True compares with YASA, False has the network alone score.

    Raises
    ------
    BadInput
        If YASA is asked for and cannot read the recording, or is not installed.
    """
    given = scored.given
    readable = all("eeg" in rows for rows in given.rows)
    share = 0.0
    if asked is not False:
        share = yasa_share(bool(foreign), readable, float(np.mean(scored.stages != UNSCORED)), given.fs_hz)
    changed: dict[str, Any] = {}
    notes = list(given.notes)
    if share:
        chances = log_mean(scored.probabilities, yasa_probabilities(scored), share)
        name, origin = ("YASA", YASA_ORIGIN) if share == 1 else ("Network and YASA", joined(scored.origin, YASA_ORIGIN))
        notes.append(
            f"scored by: {name} (Vallat & Walker 2021), because the network was trained on {', '.join(own)},"
            f" not on {', '.join(foreign)} (options.yasa=false takes the network alone)"
            + (
                f"; often misread at {given.fs_hz:g} Hz: record at {_FULL_HZ:g} Hz or more"
                if given.fs_hz < _FULL_HZ
                else ""
            )
        )
        changed = {"probabilities": chances, "origin": origin, "scored_by": name, "metrics": {}}
    elif foreign:
        slow = "" if readable else f"; YASA, which knows more of them, needs {YASA_LEAST_HZ:g} Hz"
        notes.append(f"{', '.join(foreign)}: the network was not trained on such channels, often misread{slow}")
    if asked:
        rows = yasa_probabilities(scored)
        known = np.isfinite(rows).all(axis=1)
        changed["yasa"] = np.where(known, np.nan_to_num(rows).argmax(axis=1), UNSCORED)
    return replace(scored, given=replace(given, notes=notes), **changed)


def log_mean(one: NDArray[np.floating], other: NDArray[np.floating], share: float) -> NDArray[np.floating]:
    """Probabilities whose logarithms are the weighted mean of two, ``share`` being the weight of ``other``."""
    powers = np.maximum(one, _FLOOR) ** (1 - share) * np.maximum(other, _FLOOR) ** share
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def joined(one: Origin, other: Origin) -> Origin:
    """What two networks were trained on."""
    return Origin(
        one.recorded and other.recorded,
        (*one.cohorts, *other.cohorts),
        one.subjects + other.subjects,
        one.hours + other.hours,
        f"{one.licence}; {other.licence}",
        f"{one.citation}; {other.citation}",
    )


def yasa_probabilities(scored: ScoredNight) -> NDArray[np.floating]:
    """``(epoch, class)`` by YASA, the mean over the groups of channels, NaN where it cannot score."""
    given = scored.given
    if tuple(scored.classes) != tuple(HUMAN_STAGES) or given.epoch_s != _EPOCH_S:
        raise BadInput("options.yasa", "scores human sleep in epochs of 30 s", "leave it out for this bundle")
    votes = []
    for rows, group in zip(given.rows, given.groups, strict=True):
        if "eeg" not in rows:
            problem = f"there is no EEG channel of {YASA_LEAST_HZ:g} Hz or more"
            raise BadInput("options.yasa", problem, "YASA scores EEG, with or without EOG: leave the option out")
        channels = {kind: resample(row[None], given.rows_hz, _HZ)[0] for kind, row in rows.items()}
        votes.append(classify(channels["eeg"], channels.get("eog"), np.asarray(group.usable, bool)))
    return mean_vote(votes)


def classify(
    eeg: NDArray[np.floating], eog: NDArray[np.floating] | None, usable: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Probabilities of the human stages by one EEG channel and, where there is one, an EOG channel.

    YASA's trees hold thresholds in microvolts. So that a wrong unit does not matter, both channels are multiplied by
    the factor that gives the calmest epochs of the EEG their usual amplitude.

    Parameters
    ----------
    eeg, eog
        ``(sample,)`` at 100 Hz, not filtered, in any unit, the same for both.
    usable
        ``(epoch,)``; what lies in other epochs is not looked at.

    Returns
    -------
    ndarray
        ``(epoch, class)`` in the order of ``HUMAN_STAGES``, NaN where not usable.

    Raises
    ------
    BadInput
        If YASA is not installed.
    """
    rows = {"eeg": eeg} | ({} if eog is None else {"eog": eog})
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {kind: _in_blocks(row, len(usable), kind == "eeg") for kind, row in rows.items()}
    calm = found["eeg"]["std"][usable]
    factor = _LOW_UV / np.quantile(calm[calm > np.median(calm) / 5], 0.05)  # electrodes in the air are calmer still
    columns = {}
    for kind, values in found.items():
        for name, column in values.items():
            column = column * {"std": factor, "iqr": factor, "abspow": factor**2}.get(name, 1.0)
            columns[f"{kind}_{name}"] = np.where(usable, column, np.nan)
    for name in list(columns):
        columns[f"{name}_c7min_norm"] = _normalised(columns[name], 1 - np.abs(np.arange(-7, 8)) / 8, 7)
        columns[f"{name}_p2min_norm"] = _normalised(columns[name], np.ones(4), 3)
    hours = np.arange(len(usable)) * _EPOCH_S / 3600
    columns |= {"time_hour": hours, "time_norm": hours / max(hours[-1], 1e-9)}
    trees = _trees("+".join(rows))
    table = np.stack([columns[name] for name in trees.feature_name()], axis=1).astype(np.float32)
    names = [_NAMES[name] for name in ("N1", "N2", "N3", "R", "W")]  # as scikit-learn sorts them
    chances = np.asarray(trees.predict(table), np.float32)[:, [names.index(name) for name in HUMAN_STAGES]]
    chances[~usable] = np.nan
    return chances


@cache
def _trees(channels: str) -> Any:
    """The LightGBM booster for ``eeg`` or ``eeg+eog`` in the installed package, which is not imported."""
    package = find_spec("yasa")
    if package is None or package.origin is None:
        hint = "pip install yasa, or options.yasa=false for the shipped network alone"
        raise BadInput("yasa", "the package is not installed; it holds the classifier for these channels", hint)
    import joblib

    files = sorted((Path(package.origin).parent / "classifiers").glob(f"clf_{channels}_lgb_*.joblib"))
    if not files:
        raise BadInput(package.origin, f"has no classifier for {channels}", "pip install 'yasa>=0.7,<0.9'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is of an older scikit-learn, of which nothing is used
        return joblib.load(files[-1]).booster_


def _in_blocks(row: NDArray[np.floating], n_epochs: int, is_eeg: bool) -> dict[str, NDArray[np.floating]]:
    """Features of every epoch of a channel, some epochs at a time, for the memory."""
    size = round(_EPOCH_S * _HZ)
    padded = np.pad(np.nan_to_num(row), _MARGIN, "reflect", reflect_type="odd")
    blocks = []
    for first in range(0, n_epochs, _BLOCK):
        last = min(first + _BLOCK, n_epochs)
        x = _filtered(padded[first * size : last * size + 2 * _MARGIN])
        blocks.append(_features(x.reshape(last - first, size), is_eeg))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _features(x: NDArray[np.floating], is_eeg: bool) -> dict[str, NDArray[np.floating]]:
    """Features of the ``(epoch, sample)`` of one filtered channel; names and definitions are YASA's."""
    from scipy.integrate import simpson

    deviation = x - x.mean(axis=1, keepdims=True)
    variance, steps = (deviation**2).mean(axis=1), np.diff(x, axis=1)
    mobility = np.sqrt(steps.var(axis=1) / x.var(axis=1))
    low, high = np.quantile(x, (0.25, 0.75), axis=1)
    turns, length = _sign_changes(steps), x.shape[1]
    freqs_hz, density = welch(x, _HZ, round(5 * _HZ))
    broad = (freqs_hz >= 0.4) & (freqs_hz <= 30)
    spacing_hz = freqs_hz[1]
    total = simpson(density[:, broad], dx=spacing_hz)
    found = {
        "std": x.std(axis=1, ddof=1),
        "iqr": high - low,
        "skew": (deviation**3).mean(axis=1) / variance**1.5,
        "kurt": (deviation**4).mean(axis=1) / variance**2 - 3,
        "nzc": _sign_changes(x),
        "hmob": mobility,
        "hcomp": np.sqrt(np.diff(steps, axis=1).var(axis=1) / steps.var(axis=1)) / mobility,
        "abspow": np.trapezoid(density[:, broad], dx=spacing_hz),
        "perm": _permutation_entropy(x),
        "higuchi": _higuchi_dimension(x),
        "petrosian": np.log10(length) / (np.log10(length) + np.log10(length / (length + 0.4 * turns))),
    }
    for name, (least, most) in _BANDS_HZ.items():
        inside = (freqs_hz >= least) & (freqs_hz <= most)
        found[name] = simpson(density[:, inside], dx=spacing_hz) / total
    if is_eeg:
        delta = found["sdelta"] + found["fdelta"]
        found |= {"dt": delta / found["theta"], "ds": delta / found["sigma"], "db": delta / found["beta"]}
        found["at"] = found["alpha"] / found["theta"]
    return found


def _filtered(padded: NDArray[np.floating]) -> NDArray[np.float64]:
    """0.4 to 30 Hz by the linear-phase filter that MNE designs: two windowed lowpasses, one less the other.

    The result is shorter by ``_MARGIN`` samples on both sides.
    """
    from scipy.signal import firwin, oaconvolve

    taps = -firwin(2 * _MARGIN + 1, 0.2, fs=_HZ)  # transition band 0.0 to 0.4 Hz
    taps[_MARGIN - 22 : _MARGIN + 23] += firwin(45, 33.75, fs=_HZ)  # 30 to 37.5 Hz
    return np.asarray(oaconvolve(padded.astype(np.float64), taps, "valid"))


def _sign_changes(x: NDArray[np.floating]) -> NDArray[np.integer]:
    return np.asarray((np.diff(np.signbit(x), axis=1)).sum(axis=1))


def _permutation_entropy(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Entropy of the order of three neighbouring samples, 0 to 1 (Bandt & Pompe 2002)."""
    first, second, third = x[:, :-2], x[:, 1:-1], x[:, 2:]
    pattern = 4 * (first <= second) + 2 * (second <= third) + (first <= third)
    share = np.stack([(pattern == k).mean(axis=1) for k in range(8)])
    return np.asarray(-(share * np.log2(np.maximum(share, 1e-300))).sum(axis=0) / np.log2(6))


def _higuchi_dimension(x: NDArray[np.floating], longest: int = 10) -> NDArray[np.float64]:
    """How fast the length of the curve grows as it is measured in shorter steps (Higuchi 1988)."""
    size, logs = x.shape[1], []
    for k in range(1, longest + 1):
        jumps = np.abs(x[:, k:] - x[:, :-k])
        lengths = [jumps[:, m::k].mean(axis=1) for m in range(k)]
        logs.append(np.log(np.mean(lengths, axis=0) * (size - 1) / k**2))
    steps = np.log(1 / np.arange(1, longest + 1))
    steps -= steps.mean()
    return np.asarray(steps @ np.stack(logs) / (steps @ steps))


def _normalised(column: NDArray[np.floating], weights: NDArray[np.floating], before: int) -> NDArray[np.float64]:
    """A moving average, with 0 for its median over the recording and 1 for its range from 5 to 95 %."""
    known, after = np.isfinite(column), len(weights) - 1 - before
    part = slice(after, len(column) + after)
    total, share = (
        np.convolve(values, weights)[part] for values in (np.where(known, column, 0.0), known.astype(float))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(share > 1e-9, total / share, np.nan)
        low, middle, high = np.nanquantile(mean, (0.05, 0.5, 0.95))
        return np.asarray((mean - middle) / (high - low if high > low else 1.0))
