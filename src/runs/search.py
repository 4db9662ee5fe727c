"""Optuna through Hydra's sweeper: searches that can be interrupted and repeated.

Hydra's sweeper asks for a batch of trials, runs them and reports their values at the end of the batch. A killed search
has trials without an end, and a sampler whose random numbers would start over. Here a study is reduced to its finished
trials before the sweeper sees it, and the sampler draws each trial from (seed, number of the trial), so the search goes
on with the trials that it would have asked for.
"""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from src.signals import BadInput, require_range

# Optuna loads it to keep its tables; under Hydra's logging it would name each of its plugins.
logging.getLogger("alembic").setLevel(logging.WARNING)
with warnings.catch_warnings():
    # Hydra's sweeper needs Optuna 2, whose tables are declared in the way of an older SQLAlchemy.
    warnings.simplefilter("ignore")
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import TPESampler
    from optuna.trial import FrozenTrial, TrialState


class RepeatableTPE(TPESampler):
    """Tree-structured Parzen estimator (Bergstra et al. 2011) whose draws depend on (seed, trial, history) alone.

    Parameters
    ----------
    seed
        Seed of the whole search.
    n_startup_trials
        Random trials before the estimator takes over.
    multivariate
        Whether parameters are drawn together, so that it sees their interactions.
    """

    def __init__(self, seed: int = 42, n_startup_trials: int = 10, multivariate: bool = True) -> None:
        with warnings.catch_warnings():
            # Two options are marked experimental in the pinned Optuna, and settled in later ones.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(
                seed=seed,
                n_startup_trials=n_startup_trials,
                multivariate=multivariate,
                constant_liar=True,  # trials of one batch run side by side; an unfinished one must not look good
                warn_independent_sampling=False,
            )
        self.seed = seed

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        # Optuna calls this first for every trial. Sorted, because a stored trial's parameters have another order.
        for generator in (self._rng, self._random_sampler._rng):
            generator.seed(self.seed * 1_000_003 + trial.number + 1)
        return dict(sorted(super().infer_relative_search_space(study, trial).items()))


def prepare_search(sweeper: DictConfig, mode: str, overrides: Sequence[str]) -> None:
    """Search in the direction of the model's score, and go on with a study that was interrupted.

    The study is reduced to its finished trials, which count as done of ``n_trials``.

    Raises
    ------
    BadInput
        For another direction than ``mode`` (``max`` or ``min``) among the overrides, or no trials.
    """
    require_range("hydra.sweeper", 1, n_trials=sweeper.n_trials)
    direction = {"max": "maximize", "min": "minimize"}[mode]
    given = [o.partition("=")[2] for o in overrides if o.startswith("hydra.sweeper.direction=")]
    if given and given[-1] != direction:
        raise BadInput(
            "hydra.sweeper.direction", f"is {given[-1]}", f"leave it out: the model's score asks for {direction}"
        )
    sweeper.direction = direction
    if sweeper.storage is None or sweeper.study_name is None:
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = {"study_name": sweeper.study_name, "storage": sweeper.storage}
    study = optuna.create_study(**place, direction=direction, load_if_exists=True)
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    if len(finished) < len(study.trials):
        optuna.delete_study(**place)
        study = optuna.create_study(**place, direction=direction)
        for trial in finished:
            study.add_trial(trial)
    sweeper.n_trials = max(0, sweeper.n_trials - len(finished))


def importances(storage: str) -> dict[str, float]:
    """Share of a random forest's decrease in impurity that each parameter brings, if enough trials say so.

    Optuna 2's other measure, fANOVA, fails with NumPy 2.
    """
    study = optuna.load_study(optuna.get_all_study_summaries(storage)[0].study_name, storage)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if len(complete) < 4 or len({t.value for t in complete}) < 2:
        return {}
    evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
