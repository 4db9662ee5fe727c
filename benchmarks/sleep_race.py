"""What scores by default, our network alone, YASA and GSSC on every raw recording at hand, at three gains.

python -m benchmarks.sleep_race [--shared ../shared/data] [--gains 0.2 1 5] [--only neurolit yasa]

Reads the DREAMS excerpts and the UCDDB patients with one EEG channel each. UCDDB states no unit: 1 is taken for
100 µV, which gives every scorer plausible amplitudes at gain 1. The network without context is trained on the band
powers of ``<shared>/sleep_edfx_bandpower`` and kept in ``--cache``. YASA reads the microvolts as they are. GSSC
takes part if it is installed (``pip install gssc importlib_resources``). Prints κ and macro-F1 (over the stages that
occur) of each scorer and gain, the seconds of a recording in a running process (warm), and those of a new one (cold,
UCDDB 018).
"""

import argparse
import contextlib
import io
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from src.models.metrics import scores
from src.predict.sleep import HUMAN_BUNDLE, stage
from src.recordings.sleep.hypnogram import align
from src.recordings.sleep.nights import Night, discover, load_channels, load_scoring
from src.recordings.sleep.stage_names import ScoringOptions
from src.reports.tables import markdown_table
from src.signals import HUMAN_STAGES, UNSCORED, BadInput, Recording

EPOCH_S, MICROVOLTS_PER_UNIT, YASA_ABOVE_HZ = 30.0, 100.0, 80.0
FOLDERS = {"dreams": "sleep_dreams_spindles", "ucddb": "sleep_ucddb_epochs"}
TIMED = "ucd018"
SCORES = ("κ", "macro-F1")
Scorer = Callable[[Recording], NDArray[np.integer]]


def nights(shared: Path) -> list[Night]:
    return [night for kind, folder in FOLDERS.items() for night in discover(kind, shared / folder)]


def read(night: Night) -> Recording:
    """The one channel, in microvolts or what is taken for them."""
    (recording,) = load_channels(night, ["EEG"], {"EEG": ("C3-A1", "CZ-A1")})
    factor = 1.0 if recording.units[0] == "uV" else MICROVOLTS_PER_UNIT
    return replace(recording, samples=recording.samples * np.float32(factor), units=("uV",))


def truth(night: Night, recording: Recording) -> NDArray[np.integer]:
    """A person's stages, unscored where no signal is at hand."""
    hypnogram = load_scoring(night, ScoringOptions())
    assert hypnogram is not None
    stages, _ = align(hypnogram, recording.duration_s, EPOCH_S)
    size = round(EPOCH_S * recording.fs_hz)
    epochs = recording.samples[0, : len(stages) * size].reshape(len(stages), size)
    return np.where(np.isfinite(epochs).all(axis=1), stages, UNSCORED)


def ours(recording: Recording, bundle: Path = HUMAN_BUNDLE, yasa: bool | None = None) -> NDArray[np.integer]:
    found = stage(recording.samples, recording.fs_hz, recording.channels, bundle=bundle, yasa=yasa).stages
    return _indices(found.tolist())


def yasa(recording: Recording) -> NDArray[np.integer]:
    import mne
    from yasa import SleepStaging

    if recording.fs_hz <= YASA_ABOVE_HZ:
        raise BadInput(recording.source, f"has {recording.fs_hz:g} Hz", f"YASA needs more than {YASA_ABOVE_HZ:g} Hz")
    volts = np.nan_to_num(recording.samples).astype(np.float64) * 1e-6
    raw = mne.io.RawArray(volts, mne.create_info(["C3"], recording.fs_hz, "eeg"), verbose="ERROR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [str(name) for name in SleepStaging(raw, eeg_name="C3").predict().hypno]
    return _indices(["W" if name == "WAKE" else name for name in found])


def gssc(recording: Recording) -> NDArray[np.integer]:
    import mne
    from gssc import infer

    folder = Path(infer.__file__).parent / "nets"
    networks = [torch.load(folder / name, weights_only=False) for name in ("sig_net_v1.pt", "gru_net_v1.pt")]
    volts = np.nan_to_num(recording.samples).astype(np.float64) * 1e-6
    raw = mne.io.RawArray(volts, mne.create_info(["C3"], recording.fs_hz, "eeg"), verbose="ERROR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, _ = infer.EEGInfer(*networks, use_cuda=False).mne_infer(raw, eeg=["C3"], eog=[], eeg_drop=False)
    return np.asarray(found, int)


def _indices(names: Sequence[str]) -> NDArray[np.integer]:
    return np.array([HUMAN_STAGES.index(name) if name in HUMAN_STAGES else UNSCORED for name in names])


def without_context(shared: Path, cache: Path) -> Path:
    """A bundle of the shipped network with ``context=none``, trained as the shipped one is."""
    from pretrained.make_sleep_human import MEMBERS, NETWORK, describe, read_nights, train
    from src.models.bundle import export_bundle

    if not (cache / "without_context").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        settings = {**NETWORK, "context": "none", "members": []}
        material = read_nights(shared / "sleep_edfx_bandpower")
        described = replace(describe(material, {"temperature": 1.0}, {}), network_args=settings)
        export_bundle(cache / "without_context", described, train(material, settings, MEMBERS[-1]).state_dict())
    return cache / "without_context"


def scorers(given: argparse.Namespace) -> dict[str, Scorer]:
    """The scorers asked for that are installed."""
    own: dict[str, Scorer] = {"neurolit": ours, "network alone": partial(ours, yasa=False)}
    found = own | {"yasa": yasa, "gssc": gssc}
    found = {name: found[name] for name in given.only if name in found and (name in own or find_spec(name))}
    if "no context" in given.only:
        found["no context"] = partial(ours, bundle=without_context(given.shared, given.cache), yasa=False)
    return found


def race(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per recording and scorer."""
    for night in nights(given.shared):
        recording = read(night)
        known = truth(night, recording)
        for name, scorer in scorers(given).items():
            values = {f"{score} ×{gain:g}": float("nan") for score in SCORES for gain in given.gains}
            row = {"recording": night.recording_id, "scorer": name, **values, "warm s": 0.0, "cold s": float("nan")}
            for gain in given.gains:
                begun = time.perf_counter()
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        found = scorer(replace(recording, samples=recording.samples * np.float32(gain)))
                except BadInput as refused:
                    print(f"{night.recording_id}, {name}: {refused.problem}")
                    break
                row["warm s"] = time.perf_counter() - begun
                row |= {f"{score} ×{gain:g}": value for score, value in _agreement(known, found).items()}
            yield row


def _agreement(known: NDArray[np.integer], found: NDArray[np.integer]) -> dict[str, float]:
    length = min(len(known), len(found))
    both = (known[:length] != UNSCORED) & (found[:length] != UNSCORED)
    confusion = np.zeros((len(HUMAN_STAGES),) * 2, np.int64)
    np.add.at(confusion, (known[:length][both], found[:length][both]), 1)
    values = scores(confusion, list(HUMAN_STAGES))
    return dict(zip(SCORES, (values["kappa"], values["macro_f1"]), strict=True))


def cold_seconds(given: argparse.Namespace, name: str) -> float:
    """From the start of Python to the stages of UCDDB 018."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.sleep_race",
        "--shared",
        str(given.shared),
        "--cache",
        str(given.cache),
    ]
    begun = time.perf_counter()
    subprocess.run([*command, "--once", name], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("artifacts") / "sleep_race")
    parser.add_argument("--gains", type=float, nargs="+", default=[0.2, 1.0, 5.0])
    parser.add_argument(
        "--only", nargs="+", default=["neurolit", "network alone", "no context", "yasa", "gssc"], help="scorers"
    )
    parser.add_argument("--once", help="score UCDDB 018 with this scorer, for the cold times")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.once:
        (night,) = (night for night in nights(given.shared) if night.recording_id == TIMED)
        scorers(argparse.Namespace(**{**vars(given), "only": [given.once]}))[given.once](read(night))
        return
    rows = list(race(given))
    for row in rows:
        if row["recording"] == TIMED:
            row["cold s"] = cold_seconds(given, row["scorer"])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
