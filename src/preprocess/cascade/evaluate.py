"""``preprocess=cascade_evaluate``: how well spikes are inferred on neurons that a model has never seen.

For every dataset, networks are trained on all others and tried on it; OASIS and a threshold get their
parameters from the same others. Finished lines are kept: a run that was stopped goes on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType

from src.preprocess.cascade.dense import ensemble_mean
from src.preprocess.cascade.ground_truth import Example, smooth_counts, with_noise
from src.preprocess.cascade.oasis import OasisEngine
from src.preprocess.cascade.output import cut_noise_floor, place_windows
from src.preprocess.cascade.package import Network, PackageConfig
from src.preprocess.cascade.parameters import CascadeEvaluateParams
from src.preprocess.cascade.train import examples_of, fit_ensemble, recipe_of, settings_of
from src.reports.tables import ResultsTable
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.manifest import canonical_json
from src.storage.output import OutputFolder
from src.storage.step import CachedStep, ensure

Noisy = Sequence[tuple[Example, np.ndarray]]
"""Examples with their ΔF/F ``(time,)`` at a noise level."""

Method = Callable[[np.ndarray], np.ndarray]
"""``(time,)`` ΔF/F to ``(time,)`` expected spikes per frame, smoothed as the truth is."""

SPIKES_IN_EVENT = {"1": (1, 1), "2": (2, 2), "4": (3, 5), "8": (6, 11)}
"""Column of the linearity row → smallest and largest number of spikes of the events it is the median of."""

_QUIET_S, _EVENT_S = 2.0, 1.0
_RESULT = "{} r / count"
_TRIALS = 64
"""Training trials, spread over all datasets, that the few parameters of OASIS and the threshold are fitted on."""

_TAUS_S, _LAGS, _CUTS = (0.25, 0.5, 0.8, 1.25, 2.0, 3.0), (-1, 0, 1), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class EvaluationSummary(Summary):
    """One line per dataset and noise level, and the median over datasets."""

    def table(self) -> RenderableType:
        """Median over neurons: correlation r, spike count ratio; below, the response to n spikes."""
        lines = [o.value for o in self.outcomes if o.ok and o.value["scored_neurons"]]
        if not lines or self.failures:
            return super().table()
        rows = [
            {
                "held out": line["dataset"] + (" †" if line["joined"] else ""),
                "noise": line["noise_level"],
                "neurons": line["scored_neurons"],
                **{
                    _RESULT.format(m): f"{s['correlation']:.2f} / {s['count_ratio']:.2f}"
                    for m, s in line["methods"].items()
                },
            }
            for line in lines
        ]
        median = {"held out": "median", "noise": None, "neurons": sum(line["scored_neurons"] for line in lines)}
        linearity = {"held out": "linearity", "noise": None, "neurons": None}
        for method in lines[0]["methods"]:
            scores = [line["methods"][method] for line in lines]
            r, counts = (np.array([s[name] for s in scores]) for name in ("correlation", "count_ratio"))
            within = 100 * np.mean((counts >= 0.5) & (counts <= 2))
            median[_RESULT.format(method)] = f"{np.median(r):.3f} / {np.median(counts):.2f} ({within:.0f} % in 0.5–2)"
            events = ([v for s in scores for v in s["events"][n]] for n in SPIKES_IN_EVENT)
            linearity[_RESULT.format(method)] = " ".join(f"{np.median(v):.1f}" if v else "–" for v in events)
        note = (
            "r: against the recorded spikes, smoothed; count: inferred over recorded spikes; linearity: median spikes "
            f"inferred for events of {', '.join(SPIKES_IN_EVENT)} spikes; †: trials shorter than a window were joined"
        )
        return ResultsTable([*rows, median, linearity], self.title, [note])


def run(params: CascadeEvaluateParams) -> Summary:
    """Hold out every dataset in turn; lines already in ``output_dir`` under the same settings are kept.

    A line depends on its own noise level alone: asking for another level keeps what is there.
    """
    config, found = recipe_of(params)
    if len(found) < 2:
        raise BadInput(params.input_dir, f"has {len(found)} of the datasets", "give two or more")
    OutputFolder(Path(params.output_dir), (Path(params.input_dir),))  # refuses an output that lies in the ground truth
    settings = settings_of(params, replace(config, noise_levels=()), found) | {"ingredients": params.ingredients}
    jobs = [
        Job(f"{name}, noise level {level}", evaluate_one, (config, params, settings, name, level))
        for level in config.noise_levels
        for name in config.training_datasets
    ]
    summary = run_batch(jobs, title=f"{config.model_name}, each dataset left out", workers=params.workers)
    return EvaluationSummary(summary.title, summary.outcomes)


def evaluate_one(
    config: PackageConfig, params: CascadeEvaluateParams, settings: dict[str, Any], held_out: str, level: int
) -> Mapping[str, Any]:
    """One line of the table, from an earlier run or computed."""

    def compute(*_: Any) -> dict[str, Any]:
        examples = examples_of(config, params.input_dir, params.seed, canonical_json(settings["ground_truth"]))
        return evaluate_dataset(examples, held_out, config, params, level)

    step, key = CachedStep("cascade_line", 3, compute), settings | {"held_out": held_out, "level": level}
    line: Mapping[str, Any] = ensure(
        step, {}, key, label=f"{held_out}_{level}", cache=Path(params.output_dir)
    ).manifest["facts"]  # fmt: skip
    return line


def evaluate_dataset(
    examples: Sequence[Example], held_out: str, config: PackageConfig, params: CascadeEvaluateParams, level: int
) -> dict[str, Any]:
    """Train without one dataset and score on it, at one noise level.

    Returns
    -------
    Counts, and per method the median over neurons of ``correlation``, ``count_ratio`` and ``error``, and the
    ``events`` of the linearity row. ``cascade`` puts predictions on the frames they were trained for,
    ``upstream`` one frame earlier. With ``ingredients`` also ``one network`` and ``no noise matching``.
    """
    others = [example for example in examples if example.trial.dataset != held_out]
    own = [example for example in examples if example.trial.dataset == held_out]
    noisy, training = (at_level(part, level, config, params.seed) for part in (own, others))
    training = training[:: max(1, len(training) // _TRIALS)]
    fit = partial(fit_ensemble, config=config, params=params, level=level, members=range(config.ensemble_size))
    networks = fit(others)
    ours = _infer(noisy, networks, config)
    inferred = {"cascade": ours, "upstream": [np.append(values[1:], np.nan) for values in ours]}
    if params.ingredients:
        inferred["one network"] = _infer(noisy, networks[:1], config)
        plain = [replace(example, measured_noise=np.full_like(example.measured_noise, level)) for example in others]
        inferred["no noise matching"] = _infer(noisy, fit(plain), config)
    for name, method in (("OASIS", fit_oasis(training, config)), ("threshold", fit_threshold(training, config))):
        # Scored on the frames that the networks predict, so that all methods see the same spikes.
        pairs = zip(ours, noisy, strict=True)
        inferred[name] = [np.where(np.isfinite(own), method(dff), np.nan) for own, (_, dff) in pairs]
    methods = {name: _summary(score_neurons(noisy, values, config)) for name, values in inferred.items()}
    return {
        "dataset": held_out,
        "noise_level": level,
        "neurons": len({example.trial.neuron for example, _ in noisy}),
        "scored_neurons": methods["cascade"].pop("neurons"),
        "joined": any(example.trial.number < 0 for example, _ in noisy),
        "methods": methods,
    }


def score_neurons(noisy: Noisy, inferred: Sequence[np.ndarray], config: PackageConfig) -> dict[str, dict[str, Any]]:
    """Scores of every neuron that fired, over all frames of all its trials that have a prediction.

    ``correlation`` of prediction and smoothed true counts; ``error``, the summed absolute difference per true
    spike; ``count_ratio``, inferred over true spikes; ``events``: spikes inferred for isolated events.
    """
    neurons: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for (example, _), values in zip(noisy, inferred, strict=True):
        valid = np.isfinite(values)
        arrays = values[valid], example.target[valid], example.counts[valid]
        neurons.setdefault(example.trial.neuron, []).append(arrays)
    scores = {}
    for neuron, parts in neurons.items():
        value, truth, counts = (np.concatenate(arrays).astype(float) for arrays in zip(*parts, strict=True))
        if len(value) < 2 or truth.sum() < 1 or np.ptp(truth) == 0:
            continue
        scores[neuron] = {
            "correlation": float(np.corrcoef(value, truth)[0, 1]) if np.ptp(value) > 0 else 0.0,
            "error": float(np.abs(value - truth).sum() / truth.sum()),
            "count_ratio": float(value.sum() / truth.sum()),
            "events": response_to_events(value, counts, config.sampling_rate_hz),
        }
    return scores


def response_to_events(value: np.ndarray, counts: np.ndarray, fs_hz: float) -> dict[str, list[float]]:
    """Spikes inferred for events of n spikes within a second, with two seconds of silence around them."""
    quiet, reach = int(np.ceil(_QUIET_S * fs_hz)), int(np.ceil(_EVENT_S * fs_hz))
    found: dict[str, list[float]] = {n: [] for n in SPIKES_IN_EVENT}
    for start in np.flatnonzero(counts):
        first, last = start - quiet, start + reach + quiet
        if first < 0 or last > len(counts) or counts[first:start].any() or counts[start + reach : last].any():
            continue
        total = counts[start : start + reach].sum()
        for n, (least, most) in SPIKES_IN_EVENT.items():
            if least <= total <= most:
                found[n].append(round(float(value[start - reach : start + reach + reach].sum()), 3))
    return found


def at_level(examples: Sequence[Example], level: int, config: PackageConfig, seed: int) -> Noisy:
    """The trials that are quiet and long enough, with noise added up to the level."""
    result = []
    for number, example in enumerate(examples):
        dff = with_noise(example, level, config, np.random.default_rng([seed, 1, number]))
        if dff is not None and len(dff) >= config.windowsize:
            result.append((example, dff))
    return result


def _infer(noisy: Noisy, networks: Sequence[Network], config: PackageConfig) -> list[np.ndarray]:
    result = []
    for _, dff in noisy:
        windows = ensemble_mean(dff[None], networks, config.windowsize)
        cut_noise_floor(windows, config, 1)  # as is done by default with a recording
        result.append(place_windows(windows, len(dff), config, "centered")[0])
    return result


def _summary(scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    names = ("correlation", "error", "count_ratio")
    medians = {n: round(float(np.median([s[n] for s in scores.values()])), 4) if scores else None for n in names}
    events = {n: [v for s in scores.values() for v in s["events"][n]] for n in SPIKES_IN_EVENT}
    return medians | {"events": events, "neurons": len(scores)}


def fit_oasis(training: Noisy, config: PackageConfig) -> Method:
    """OASIS with the decay time, lag and ΔF/F per spike that fit the training neurons best (least squares)."""

    def candidate(tau_s: float, lag: int) -> Method:
        engine = OasisEngine(f"tau{tau_s:g}s_amplitude1", fs_hz=config.sampling_rate_hz)

        def infer(dff: np.ndarray) -> np.ndarray:
            from_baseline = dff - np.percentile(dff, 8)
            return smooth_counts(np.roll(engine.predict(from_baseline[None])[0], lag), config)

        return infer

    return _best((candidate(tau_s, lag) for tau_s in _TAUS_S for lag in _LAGS), training)


def fit_threshold(training: Noisy, config: PackageConfig) -> Method:
    """A spike where ΔF/F rises by more than so many times the noise; cut, lag and size as fit best."""

    def candidate(cut: float, lag: int) -> Method:
        def infer(dff: np.ndarray) -> np.ndarray:
            rise = np.diff(dff, prepend=dff[:1])
            noise = np.median(np.abs(rise)) / 0.6745
            return smooth_counts(np.roll((rise > cut * noise).astype(float), lag), config)

        return infer

    return _best((candidate(cut, lag) for cut in _CUTS for lag in _LAGS), training)


def _best(candidates: Iterable[Method], training: Noisy) -> Method:
    """The candidate, times the factor, whose squared error on the training neurons is the least."""
    truth = np.concatenate([example.target for example, _ in training]).astype(float)
    fitted: list[tuple[float, float, Method]] = []
    for infer in candidates:
        value = np.concatenate([infer(dff) for _, dff in training])
        power = float(value @ value)
        scale = float(value @ truth) / power if power else 0.0
        fitted.append((float(np.square(scale * value - truth).sum()), scale, infer))
    _, scale, infer = min(fitted, key=lambda item: item[0])
    return lambda dff: scale * infer(dff)
