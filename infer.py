"""Predict with a bundle: ``python infer.py bundle=runs/sleep_cnn/latest input=night.edf``.

Without ``bundle=`` the shipped network for human sleep is taken.
"""

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src import schema
from src.models.bundle import load_bundle
from src.runs.user_errors import exit_with, user_errors
from src.signals import BadInput
from src.storage.batch import Summary

schema.register()

PREDICTORS = {
    "sleep_staging": "src.predict.sleep",
    "spike_detection": "src.predict.spikes",
    "grid_forecasting": "src.predict.grids",
}
"""Task of a bundle → the module whose ``predict`` carries it out."""

PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "sleep_human"
"""What predicts where no bundle is named."""
SIMULATED = "SIMULATED  it was trained on simulated data: its scores and its results say nothing about recordings"


def given_options(options: DictConfig, module: Any, task: str) -> dict[str, Any]:
    """The options that were given, all of which the predictor has to know."""
    given: dict[str, Any] = {str(k): v for k, v in OmegaConf.to_container(options).items() if v is not None}  # type: ignore[union-attr]
    known = getattr(module, "OPTIONS", None) or list(signature(module.predict).parameters)[3:]
    for name in given:
        if name not in known:
            raise BadInput(f"options.{name}", f"is no option of {task}", f"choose from: {', '.join(known)}")
    return given


@hydra.main(config_path="conf", config_name="infer", version_base="1.3")
def main(cfg: DictConfig) -> None:
    console = Console()
    with user_errors(console):
        bundle = load_bundle(cfg.bundle or PRETRAINED)
        if bundle.task not in PREDICTORS:
            raise BadInput(cfg.bundle, f"is for the unknown task {bundle.task!r}", "update neurolit")
        module = import_module(PREDICTORS[bundle.task])
        console.print(f"bundle     {bundle.folder}, {bundle.origin}", markup=False, highlight=False, soft_wrap=True)
        if not bundle.origin.recorded:
            console.print(SIMULATED, style="bold yellow", highlight=False, soft_wrap=True)
        options = given_options(cfg.options, module, bundle.task)
        summary: Summary = module.predict(bundle, Path(cfg.input), Path(cfg.output_dir), **options)
    console.print(summary.table())
    for name, lines in summary.values.items():
        if len(summary.values) > 1:
            console.print(f"\n{name}", style="bold", markup=False, highlight=False)
        console.print("\n".join(lines), highlight=False, soft_wrap=True)
    exit_with(summary.exit_code)


if __name__ == "__main__":
    main()
