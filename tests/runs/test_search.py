import json

import numpy as np
import pytest
from omegaconf import OmegaConf

from src.runs.search import RepeatableTPE, importances, optuna, prepare_search
from src.runs.sweep import release
from src.signals import BadInput
from tests.runs import toy
from tests.runs.verb import train
from tests.tables import read_csv

SPACE = {
    "lr": optuna.distributions.LogUniformDistribution(1e-4, 1e-1),
    "dropout": optuna.distributions.UniformDistribution(0, 0.5),
}
SEARCH = """\
# @package _global_
defaults:
  - override /hydra/sweeper: optuna
  - override /hydra/sweeper/sampler: repeatable_tpe
hydra:
  sweeper:
    study_name: toy
    storage: sqlite:///${hydra.sweep.dir}/study.db
    n_trials: 6
    n_jobs: 1
    max_failure_rate: 1.0
    sampler:
      n_startup_trials: 3
    params:
      model.lr: tag(log, interval(1e-2, 1))
      datamodule.batch_size: choice(8, 16)
"""


def score(parameters):
    return (np.log10(parameters["lr"]) + 2.5) ** 2 + parameters["dropout"]


def search(storage, trials, stop_after=None):
    """Ask and tell as Hydra's sweeper does; ``stop_after`` asks for that trial and never comes back."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweeper = OmegaConf.create({"storage": storage, "study_name": "s", "direction": "maximize", "n_trials": trials})
    prepare_search(sweeper, "min", [])
    sampler = RepeatableTPE(seed=1, n_startup_trials=3)
    study = optuna.create_study(storage=storage, study_name="s", sampler=sampler, load_if_exists=True)
    for _ in range(sweeper.n_trials):
        trial = study.ask()
        parameters = {name: trial._suggest(name, distribution) for name, distribution in SPACE.items()}
        if trial.number == stop_after:
            return study
        study.tell(trial, score(parameters))
    return study


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("stop_after", [0, 2, 5])
def test_an_interrupted_search_asks_for_the_trials_it_would_have_asked_for(tmp_path, stop_after):
    whole = search(f"sqlite:///{tmp_path}/whole.db", 8)
    search(f"sqlite:///{tmp_path}/broken.db", 8, stop_after)
    resumed = search(f"sqlite:///{tmp_path}/broken.db", 8)
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]
    assert all(t.state.is_finished() for t in resumed.trials)
    assert len({t.params["lr"] for t in whole.trials}) == 8
    shares = importances(f"sqlite:///{tmp_path}/whole.db")
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("trials", "override", "message"),
    [(0, "n_trials=0", "n_trials: is 0"), (3, "direction=minimize", r"direction: is minimize; .* asks for maximize")],
)
def test_a_search_in_the_wrong_direction_or_of_nothing_is_refused(trials, override, message):
    sweeper = OmegaConf.create({"storage": None, "study_name": None, "direction": "minimize", "n_trials": trials})
    with pytest.raises(BadInput, match=message):
        prepare_search(sweeper, "max", [f"hydra.sweeper.{override}"])
    if trials:
        prepare_search(sweeper, "max", [])  # Hydra's own default would minimise
        assert sweeper.direction == "maximize"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning", "ignore::FutureWarning")
@pytest.mark.slow
def test_a_search_through_hydra_is_resumed_and_concluded(tmp_path, monkeypatch):
    class PowerCut(BaseException):
        pass

    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    (tmp_path / "conf" / "sweep" / "toy.yaml").write_text(SEARCH)
    step, epochs = toy.Classifier.training_step, []

    def fail_in_the_third_job(self, batch, batch_idx):
        if batch_idx == 0:
            epochs.append(self.current_epoch)
        if len(epochs) == 8:
            epochs.append(-1)
            raise PowerCut
        return step(self, batch, batch_idx)

    monkeypatch.setattr(toy.Classifier, "training_step", fail_in_the_third_job)
    with pytest.raises(PowerCut):
        train(tmp_path, "-m", "sweep=toy")
    release()
    train(tmp_path, "-m", "sweep=toy")
    (sweep,) = [p for p in (tmp_path / "runs" / "sweeps").iterdir() if not p.is_symlink()]
    jobs = read_csv(sweep / "jobs.csv")
    assert [job["status"] for job in jobs] == ["finished"] * 6
    attempts = [json.loads((sweep / str(i) / "run.json").read_text())["attempts"] for i in range(6)]
    assert attempts == [1, 1, 2, 1, 1, 1]
    assert epochs.count(0) == 6  # no job was started from the beginning twice
    study = optuna.load_study("toy", f"sqlite:///{sweep}/study.db")
    assert [t.value for t in study.trials] == [float(job["val/loss"]) for job in jobs]
    assert json.loads((sweep / "sweep.json").read_text())["status"] == "finished"
    assert (sweep / "search.png").stat().st_size > 10_000
    assert (sweep / "best" / "bundle.json").is_file()
