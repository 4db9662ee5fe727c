"""Predict with a bundle: ``python infer.py bundle=runs/sleep_cnn/latest input=night.edf``."""

import sys
from importlib import import_module
from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console

from src import schema
from src.models.bundle import load_bundle
from src.runs.refusal import refusals
from src.signals import BadInput

schema.register()

PREDICTORS = {"sleep_staging": "src.predict.sleep", "spike_detection": "src.predict.spikes"}
"""Task of a bundle → the module whose ``predict`` carries it out."""


@hydra.main(config_path="conf", config_name="infer", version_base="1.3")
def main(cfg: DictConfig) -> None:
    console = Console()
    with refusals(console):
        bundle = load_bundle(cfg.bundle)
        if bundle.task not in PREDICTORS:
            raise BadInput(cfg.bundle, f"is for the unknown task {bundle.task!r}", "update neurolit")
        predict = import_module(PREDICTORS[bundle.task]).predict
        summary = predict(bundle, Path(cfg.input), Path(cfg.output_dir), **{str(k): v for k, v in cfg.options.items()})
    console.print(summary.table())
    for lines in summary.values.values():
        console.print("\n".join(lines), highlight=False, soft_wrap=True)
    sys.exit(summary.exit_code)


if __name__ == "__main__":
    main()
