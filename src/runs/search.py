"""Optuna through Hydra's sweeper: searches that can be interrupted and repeated.

Hydra's sweeper asks for a batch of trials, runs them and tells their values at the end of the batch. A
killed search leaves trials without an end and a sampler whose random numbers would start over. Here a
study is cut back to its finished trials before the sweeper sees it, and the sampler draws each trial from
(seed, number of the trial): the search goes on with the very trials it would have asked for.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from omegaconf import DictConfig

# Optuna loads it to keep its tables; under Hydra's logging it would name each of its plugins.
logging.getLogger("alembic").setLevel(logging.WARNING)
with warnings.catch_warnings():
    # Hydra's sweeper needs Optuna 2, whose tables are declared in the way of an older SQLAlchemy.
    warnings.simplefilter("ignore")
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler, TPESampler
    from optuna.trial import FrozenTrial, TrialState


class RepeatableTPE(BaseSampler):
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
        self.seed, self.n_startup_trials, self.multivariate = seed, n_startup_trials, multivariate
        self._current: tuple[int, TPESampler] = (-1, self._sampler(-1))

    def _sampler(self, number: int) -> TPESampler:
        # Trials of one batch run side by side; to the estimator an unfinished one must not look good.
        with warnings.catch_warnings():
            # Both options are marked experimental in the pinned Optuna, and settled in later ones.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                seed=self.seed * 1_000_003 + number + 1,
                n_startup_trials=self.n_startup_trials,
                multivariate=self.multivariate,
                constant_liar=True,
                warn_independent_sampling=False,
            )

    def _of(self, trial: FrozenTrial) -> TPESampler:
        if self._current[0] != trial.number:
            self._current = (trial.number, self._sampler(trial.number))
        return self._current[1]

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        # Sorted, because the order of a stored trial's parameters is not that of its request.
        return dict(sorted(self._of(trial).infer_relative_search_space(study, trial).items()))

    def sample_relative(
        self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


def continue_study(sweeper: DictConfig) -> None:
    """Cut the sweeper's study back to its finished trials and count them as done of its ``n_trials``."""
    if sweeper.storage is None or sweeper.study_name is None:
        return
    study = _open(sweeper)
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    if len(finished) < len(study.trials):
        optuna.delete_study(sweeper.study_name, sweeper.storage)
        study = _open(sweeper)
        for trial in finished:
            study.add_trial(trial)
    sweeper.n_trials = max(0, sweeper.n_trials - len(finished))


def importances(storage: str) -> dict[str, float]:
    """Share of a random forest's decrease in impurity that each parameter brings, if it can be told.

    Optuna 2's other measure, fANOVA, fails with NumPy 2.
    """
    study = optuna.load_study(optuna.get_all_study_summaries(storage)[0].study_name, storage)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if len(complete) < 4 or len({t.value for t in complete}) < 2:
        return {}
    evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _open(sweeper: DictConfig) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = getattr(sweeper.direction, "name", sweeper.direction)
    return optuna.create_study(
        storage=sweeper.storage, study_name=sweeper.study_name, direction=direction, load_if_exists=True
    )
