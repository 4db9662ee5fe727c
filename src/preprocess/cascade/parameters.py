"""Parameters of ``preprocess=cascade_train`` and ``preprocess=cascade_evaluate``."""

from dataclasses import dataclass

from omegaconf import MISSING

from src.signals import BadInput
from src.storage.batch import Summary
from src.storage.parameters import PreprocessConfig


@dataclass
class CascadeTrainParams(PreprocessConfig):
    """Train a CASCADE package from ground truth; by default the published protocol of the recipe."""

    recipe: str = MISSING  # config.yaml of a CASCADE package: rate, datasets, noise levels, architecture, epochs
    input_dir: str = MISSING  # folder of the DSxx-… datasets
    output_dir: str = "artifacts/cascade_models"  # the package appears here under its name
    seed: int = 0  # of the first weights and every draw
    name: str | None = None  # of the package; null: that of the recipe
    noise_levels: list[int] | None = None  # null: those of the recipe
    ensemble_size: int | None = None  # networks per noise level; null: that of the recipe
    epochs: int | None = None  # per network; null: those of the recipe
    max_windows: int = 5_000_000  # per epoch, as published
    max_steps: int | None = None  # per network, at most
    stretch: int = 64  # neighbouring windows that are drawn together; 1: independent, as published
    skip_missing: bool = False  # go on without datasets that are not there

    def run(self) -> Summary:
        from src.preprocess.cascade.train import run

        return run(self)

    def check(self) -> None:
        """Raise ``BadInput`` for numbers with which nothing would be trained."""
        counts = {
            name: getattr(self, name) for name in ("ensemble_size", "epochs", "max_windows", "max_steps", "stretch")
        }
        for name, value in {**counts, "noise_levels": self.noise_levels and min(self.noise_levels)}.items():
            if value is not None and (value == [] or value < 1):
                raise BadInput(name, f"is {value}", "give 1 or more")


@dataclass
class CascadeEvaluateParams(CascadeTrainParams):
    """Leave one dataset out, train on the others, compare with the recorded spikes; OASIS and a threshold beside it."""

    output_dir: str = "artifacts/cascade_evaluation"  # finished lines are kept here
    ingredients: bool = False  # also without noise matching, and with one network instead of the ensemble

    def run(self) -> Summary:
        from src.preprocess.cascade.evaluate import run

        return run(self)
