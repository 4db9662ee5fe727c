"""Make ``pretrained/sleep_human``, the network that scores people where no bundle is named.

    python -m pretrained.make_sleep_human <folder of the 84 Sleep-EDF nights as band powers> [--jobs 2]

Six folds over subjects (``conf/folds/sleep_edfx_bandpower_6.json``) give the scores, the temperature and the
calibration of the card; each scores nights of subjects that it has not seen. Then the same training on all 84 nights
gives the network that ships. The number of steps is fixed, so that no subject is needed to choose when to stop.
Everything is drawn from one seed on one thread: the same machine gives the same weights again. The network is the mean
of two that are trained apart (``MEMBERS``): 14 trainings of about 200 and 250 CPU seconds. What is finished is kept in
``--work`` and not trained twice. Weights ship as float16, so that both have less than 1 MB.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional

from src.datamodules.sleep_sequences import SPAN_VIEWS, SpanOptions, draw_windows
from src.models.bundle import Bundle, build_network, export_bundle
from src.models.metrics import scores
from src.models.sleep.networks import SequenceMean, SequenceSettings
from src.predict.sleep import stage_probabilities
from src.predict.sleep_statistics import LEVEL, Interval, reliability, sleep_statistics, statistic_intervals
from src.preprocess.sleep.bandpower import BandPowerSettings
from src.preprocess.sleep.bandpower_files import CHANNELS, LAYOUTS, find_bandpower, read_bandpower_night
from src.preprocess.sleep.epochs import EpochSet, EpochSettings
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION
from src.preprocess.sleep.prepare import SLEEP_EPOCHS
from src.recordings.sleep.hypnogram import transition_counts
from src.signals import HUMAN_STAGES, UNSCORED, Origin, SignalSpec
from src.storage.manifest import provenance

HERE = Path(__file__).parent
WORK = Path("artifacts") / "sleep_human"
FOLDS = HERE.parent / "conf" / "folds" / "sleep_edfx_bandpower_6.json"
SEED, STEPS, SPANS_PER_STEP, LEARNING_RATE = 0, 1500, 8, 4e-3
AVERAGED_FROM, AVERAGE_STEP = 0.6, 0.02
SPANS = SpanOptions(jitter_db=0, tilt_db=0, jitter_scatter=0)  # other montages are YASA's: src/predict/sleep_yasa.py
MEMBERS = (SPANS, replace(SPANS, views=SPAN_VIEWS, window_epochs=120, windows=2))
NETWORK: dict[str, Any] = {
    "n_channels": 3,
    "n_freqs": 20,
    "members": [10, 20],
    "n_frames": 1,
    "n_classes": 5,
    "window_epochs": 100,
    "dropout": 0.3,
}
EXCERPT, WAKE_AROUND = 60, 1440
Night = tuple[str, str, EpochSet]
Scored = tuple[NDArray[np.floating], NDArray[np.integer]]
Intervals: TypeAlias = dict[str, Interval]
Truths: TypeAlias = dict[str, float | None]
Change = Callable[[EpochSet], tuple[EpochSet, slice]]


def read_nights(folder: Path) -> list[Night]:
    """``(recording, subject, epochs)`` of every night."""
    return [(name, subject, read_bandpower_night(path)) for name, subject, path in find_bandpower(folder, "bandpower")]


def train(nights: Sequence[Night], network_args: Mapping[str, Any], spans: SpanOptions) -> torch.nn.Module:
    """One network, trained on windows of ``nights`` for a fixed number of steps."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    levels = [np.where(e.usable[:, None, None, None], e.features, np.nan).astype(np.float32) for _, _, e in nights]
    stages = [e.stages.astype(np.int64) for _, _, e in nights]
    share = np.array([len(s) for s in stages]) / sum(len(s) for s in stages)

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = rng.choice(len(nights), count, p=share)
        drawn = [draw_windows(rng, levels[night], stages[night], spans) for night in chosen]
        seen, known = (np.concatenate(part) for part in zip(*drawn, strict=True))
        return torch.from_numpy(seen), torch.from_numpy(known)

    network = build_network("sleep_sequence", dict(network_args))
    first = batch(100)[0].flatten(0, 1)[..., 0].double().numpy()
    network.standardize.adopt(torch.from_numpy(np.nanmean(first, 0)), torch.from_numpy(np.nanstd(first, 0)))  # type: ignore[union-attr,operator]
    counts = np.bincount(np.concatenate(stages)[np.concatenate(stages) != UNSCORED], minlength=len(HUMAN_STAGES))
    weight = torch.from_numpy(counts**-0.5 * counts.sum() / (counts**0.5).sum()).float()
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE)
    # Linear warm-up over a tenth of the steps under a falling half cosine.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 10 * (step + 1) / STEPS) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
    )
    average: dict[str, torch.Tensor] | None = None
    network.train()
    for step in range(STEPS):
        seen, known = batch(SPANS_PER_STEP)
        logits = network(seen)
        loss = functional.cross_entropy(
            logits.flatten(0, 1), known.flatten(), weight, ignore_index=UNSCORED, label_smoothing=0.05
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step >= AVERAGED_FROM * STEPS:
            latest = {name: value.clone() for name, value in network.state_dict().items()}
            average = average or latest
            for name, value in average.items():
                value.lerp_(latest[name], AVERAGE_STEP)
    assert average is not None
    network.load_state_dict(average)
    return network.eval()


def trained(nights: Sequence[Night], work: Path, name: str) -> torch.nn.Module:
    """The shipped kind of network; :func:`train` of each member, or what an earlier call left in ``work``."""
    network = SequenceMean(SequenceSettings(**NETWORK))
    for member, rows, spans in zip(network.members, network.rows, MEMBERS, strict=True):
        kept = work / f"{name}_{rows}.safetensors"
        if not kept.is_file():
            save_file(train(nights, {**NETWORK, "n_freqs": rows, "members": []}, spans).state_dict(), kept)
        member.load_state_dict(load_file(kept))
    return network.eval()


def whole_night(epochs: EpochSet) -> tuple[EpochSet, slice]:
    return epochs, slice(0, len(epochs.stages))


def excerpt(epochs: EpochSet) -> tuple[EpochSet, slice]:
    """Half an hour from the middle of the night."""
    first = len(epochs.stages) // 2
    return _epochs(epochs, np.arange(first, first + EXCERPT)), slice(0, EXCERPT)


def wake_around(epochs: EpochSet) -> tuple[EpochSet, slice]:
    """The night with twelve hours of its own wake repeated on both sides; the wake is not scored."""
    wake = np.flatnonzero((epochs.stages == 0) & epochs.usable)
    around = wake[np.arange(WAKE_AROUND) % len(wake)]
    length = len(epochs.stages)
    chosen = np.concatenate([around, np.arange(length), around])
    return _epochs(epochs, chosen), slice(WAKE_AROUND, WAKE_AROUND + length)


def first_channel(epochs: EpochSet) -> tuple[EpochSet, slice]:
    """Fpz-Cz alone."""
    features = epochs.features.copy()
    features[:, 1:] = np.nan
    return EpochSet(**{**vars(epochs), "features": features}), slice(0, len(epochs.stages))


def _epochs(epochs: EpochSet, chosen: NDArray[np.int64]) -> EpochSet:
    parts = {name: getattr(epochs, name)[chosen] for name in ("features", "stages", "usable", "onset_s")}
    return EpochSet(**{**vars(epochs), **parts})


CONDITIONS: dict[str, Change] = {
    "whole nights": whole_night,
    "30-minute excerpts": excerpt,
    "12 h of wake on both sides": wake_around,
    "Fpz-Cz alone": first_channel,
}


def score_fold(folder: Path, fold: int, work: Path) -> dict[str, list[Scored]]:
    """Probabilities (temperature 1) and a person's stages of a fold's nights, by condition."""
    nights, tested = read_nights(folder), set(json.loads(FOLDS.read_text())["folds"][fold])
    network = trained([night for night in nights if night[1] not in tested], work, f"fold_{fold}")
    found: dict[str, list[Scored]] = {name: [] for name in CONDITIONS}
    for _, subject, epochs in nights:
        for name, change in CONDITIONS.items() if subject in tested else ():
            changed, counted = change(epochs)
            chances = stage_probabilities(network, changed, temperature=1.0, views=SPAN_VIEWS, find_period=True)
            chances = chances[counted]
            both = (changed.stages[counted] != UNSCORED) & np.isfinite(chances).all(axis=1)
            chances[~both] = np.nan
            found[name].append((chances, np.where(both, changed.stages[counted], UNSCORED)))
    return found


def score_folds(folder: Path, work: Path, jobs: int) -> list[dict[str, list[Scored]]]:
    """:func:`score_fold` of every fold."""
    work.mkdir(parents=True, exist_ok=True)
    folds = range(len(json.loads(FOLDS.read_text())["folds"]))
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(score_fold, [folder] * len(folds), folds, [work] * len(folds)))


def pooled(nights: Iterable[Scored]) -> Scored:
    """The scored epochs of some nights."""
    rows, stages = (np.concatenate(part) for part in zip(*nights, strict=True))
    return rows[stages != UNSCORED], stages[stages != UNSCORED]


def without(folds: Sequence[Sequence[Scored]], fold: int | None) -> list[Scored]:
    """The nights of all other folds."""
    return [night for k, nights in enumerate(folds) if k != fold for night in nights]


def held_back_intervals(folds: Sequence[Sequence[Scored]]) -> list[list[tuple[Intervals, Truths]]]:
    """Intervals without margins, and the values of the person's scoring, of every night of every fold.

    Temperature and transitions of a fold are those of the others.
    """
    found = []
    for fold, nights in enumerate(folds):
        others = without(folds, fold)
        temperature = fit_temperature(*pooled(others))
        transitions = sum(transition_counts(stages, len(HUMAN_STAGES)) for _, stages in others)
        epoch_s = LAYOUTS["bandpower"].window_s
        pairs = [
            (
                statistic_intervals(heated(rows, temperature), np.asarray(transitions), HUMAN_STAGES, epoch_s),
                sleep_statistics(stages, HUMAN_STAGES, epoch_s),
            )
            for rows, stages in nights
        ]
        found.append(pairs)
    return found


def interval_margins(
    intervals: Sequence[Mapping[str, Interval]], truths: Sequence[Mapping[str, float | None]]
) -> dict[str, tuple[float, float]]:
    """How far intervals have to reach further so that they cover ``LEVEL`` of nights like these.

    Conformalized quantile regression (Romano, Patterson & Candès 2019, NeurIPS): of ``n`` nights that the network
    has not seen, the ``⌈(n + 1)(1 + LEVEL) / 2⌉``-th smallest distance by which the true value lies below the
    interval, and the same above it. A margin is negative where the intervals reach too far or lie to one side.

    Parameters
    ----------
    intervals
        Of each night, by :func:`~src.predict.sleep_statistics.statistic_intervals` without margins.
    truths
        Of each night, :func:`~src.predict.sleep_statistics.sleep_statistics` of a person's scoring.

    Returns
    -------
    ``{statistic: (below, above)}``, for those that half of the nights have.
    """
    margins = {}
    for name in intervals[0]:
        rows = [(i[name], t[name]) for i, t in zip(intervals, truths, strict=True)]
        known = np.array([(low_high[0], low_high[1], true) for low_high, true in rows if low_high and true is not None])
        if 2 * len(known) <= len(rows):
            continue
        place = min(len(known), int(np.ceil((len(known) + 1) * (1 + LEVEL) / 2))) - 1
        low, high, true = known.T
        margins[name] = (float(np.sort(low - true)[place]), float(np.sort(true - high)[place]))
    return margins


def fit_temperature(probabilities: NDArray[np.floating], stages: NDArray[np.integer]) -> float:
    """The temperature of the least log loss (Guo et al. 2017)."""
    logits, known = torch.from_numpy(probabilities).double().clamp_min(1e-9).log(), torch.from_numpy(stages).long()
    grid = torch.logspace(-0.5, 0.5, 101, dtype=torch.float64)
    losses = torch.stack([functional.cross_entropy(logits / t, known) for t in grid])
    return float(grid[losses.argmin()])


def heated(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    """Probabilities at another temperature; NaN stays NaN."""
    powers = np.maximum(probabilities, 1e-9).astype(float) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def confusion(probabilities: NDArray[np.floating], stages: NDArray[np.integer]) -> NDArray[np.int64]:
    counts = np.zeros((len(HUMAN_STAGES), len(HUMAN_STAGES)), np.int64)
    np.add.at(counts, (stages.astype(int), probabilities.argmax(axis=1)), 1)
    return counts


def describe(nights: Sequence[Night], decision: dict[str, Any], metrics: dict[str, float]) -> Bundle:
    """The bundle without its weights."""
    settings = EpochSettings.from_params(
        {"channels": list(CHANNELS), "features": asdict(BandPowerSettings()), "margin_s": None}
    )
    transitions = sum(transition_counts(epochs.stages, len(HUMAN_STAGES)) for _, _, epochs in nights)
    layout = LAYOUTS["bandpower"]
    hours = sum(int((epochs.stages != UNSCORED).sum()) for _, _, epochs in nights) * layout.window_s / 3600
    cited = "Kemp et al. 2000, IEEE Trans Biomed Eng 47:1185; Goldberger et al. 2000, Circulation 101:e215"
    subjects = len({subject for _, subject, _ in nights})
    return Bundle(
        task="sleep_staging",
        kind="sleep_sequence",
        network_args=NETWORK,
        signal=SignalSpec(
            CHANNELS, 100.0, layout.window_s, layout.units, ("epoch", *layout.axes),
            (SPANS.window_epochs, 3, NETWORK["n_freqs"], 1), layout.freqs_hz,
        ),
        steps=[
            SLEEP_EPOCHS.describe(settings.to_params("bandpower")),
            {"step": NIGHT_VIEW, "version": NIGHT_VIEW_VERSION, "params": {"views": list(SPAN_VIEWS)}},
        ],
        classes=list(HUMAN_STAGES),
        decision={
            "transitions": np.asarray(transitions).tolist(),
            "sleep_period": True,
            "any_channel": True,
            **decision,
        },
        metrics=metrics,
        split={"method": f"six folds over subjects ({FOLDS.name}); the network that ships has seen all of them"},
        origin=Origin(True, ("Sleep-EDF Expanded (sleep cassette)",), subjects, round(hours, 1), "ODC-By 1.0", cited),
        provenance={name: value for name, value in provenance().items() if name != "code"},
    )  # fmt: skip


def card_table(folds: Sequence[dict[str, list[Scored]]]) -> str:
    """The scores of the card, a row per condition."""
    lines = [
        "| unseen subjects, pooled | κ | macro-F1 | N1 | accuracy | sd of κ over folds |",
        "|---|---|---|---|---|---|",
    ]
    for name in CONDITIONS:
        tables = [confusion(*pooled(fold[name])) for fold in folds]
        total = scores(sum(tables[1:], tables[0]), list(HUMAN_STAGES))
        spread = np.std([scores(table, list(HUMAN_STAGES))["kappa"] for table in tables], ddof=1)
        values = (total["kappa"], total["macro_f1"], total["f1_N1"], total["accuracy"], spread)
        lines.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Score by folds, train on everything, write the bundle and the table of its card."""
    parser = argparse.ArgumentParser(prog="python -m pretrained.make_sleep_human", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args(arguments)
    folds = score_folds(given.folder, given.work, given.jobs)
    nights = read_nights(given.folder)
    network = trained(nights, given.work, "all")
    whole = [fold["whole nights"] for fold in folds]
    temperature = fit_temperature(*pooled(without(whole, None)))
    # Each fold's confidence is judged with the temperature of the others.
    cool = [heated(pooled(some)[0], fit_temperature(*pooled(without(whole, k)))) for k, some in enumerate(whole)]
    stages = pooled(without(whole, None))[1]
    ece = reliability(np.concatenate(cool), stages)[1]
    print(card_table(folds))
    kappas = [scores(confusion(*pooled(some)), list(HUMAN_STAGES))["kappa"] for some in whole]
    print(f"\nTemperature {temperature:.2f}; calibration error (ECE) {ece:.3f} on whole nights.")
    print(f"κ of single folds: {', '.join(f'{value:.2f}' for value in kappas)}")
    total = scores(confusion(*pooled(without(whole, None))), list(HUMAN_STAGES))
    metrics = {f"test/{name}": round(value, 6) for name, value in total.items()} | {"test/ece": round(ece, 6)}
    intervals, truths = zip(*(pair for pairs in held_back_intervals(whole) for pair in pairs), strict=True)
    margins = {name: [round(v, 1) for v in pair] for name, pair in interval_margins(intervals, truths).items()}
    described = describe(nights, {"temperature": temperature, "interval_margins": margins}, metrics)
    export_bundle(HERE / "sleep_human", described, {k: v.half() for k, v in network.state_dict().items()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
