"""Train one experiment: ``python train.py experiment=sleep_cnn``; the same command continues an interrupted run."""

from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src import schema
from src.models.bundle import Bundle, export_bundle
from src.preprocess.stage import provenance
from src.reports.tables import results_table, summary_table
from src.runs.callbacks import AtomicCheckpointIO, training_callbacks
from src.runs.console import quiet_trainer
from src.runs.folder import RunFolder, open_run
from src.runs.refusal import refusals
from src.runs.tracking import log_bundle, merge_csv, open_loggers

schema.register()
quiet_trainer()


def train(cfg: DictConfig, config: dict[str, Any], run: RunFolder, console: Console) -> float:
    """Fit, choose the best checkpoint on validation, test it once, export it; returns the validation score."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.datamodule, _recursive_=False, _convert_="all")
    datamodule.prepare_data()
    datamodule.setup("fit")
    run.write("split.json", datamodule.split.to_dict())
    console.print(summary_table(datamodule.summary()))
    signal, classes = datamodule.signal.to_dict(), datamodule.classes
    model = instantiate(cfg.model, signal=signal, classes=classes, _recursive_=False, _convert_="all")
    model.adopt_statistics(datamodule.training_statistics())
    monitor, mode = model.monitor
    with open_loggers(cfg.logger, run, config=config, job_type="train") as loggers:
        trainer = instantiate(cfg.trainer, _partial_=True)(
            callbacks=training_callbacks(run.path, monitor=monitor, mode=mode, patience=cfg.patience, seed=cfg.seed),
            logger=loggers,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(run.path),
            enable_model_summary=False,
        )
        trainer.fit(model, datamodule, ckpt_path=run.last_checkpoint(), weights_only=True)
        best = trainer.checkpoint_callback
        trainer.test(model, datamodule, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
        metrics = {"best_epoch_score": float(best.best_model_score), **model.test_metrics()}
        fields = {**model.bundle_fields(), "decision": model.tune(datamodule)}
        bundle = Bundle(
            signal=datamodule.signal,
            stages=datamodule.stages(),
            classes=classes,
            metrics=metrics,
            split=datamodule.split.to_dict(),
            provenance=provenance() | {"run": run.key},
            **fields,
        )
        export_bundle(run.bundle, bundle, model.network.state_dict())
        log_bundle(loggers, run.bundle, metrics)
    merge_csv(run)
    run.write("results.json", {"metrics": metrics, "rows": model.results()})
    run.finish(metrics=metrics)
    console.print(results_table(model.results(), title=f"{cfg.name}: held-out test data"))
    console.print(f"run     {run.path}\nbundle  {run.bundle}", highlight=False, soft_wrap=True)
    return float(best.best_model_score)


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float:
    console = Console()
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    with (
        refusals(console),
        open_run(config, runs_dir=Path(cfg.runs_dir), name=cfg.name, resume=cfg.resume) as run,
    ):
        if run.attempt:
            console.print(f"continuing the interrupted run {run.path}", highlight=False, soft_wrap=True)
        return train(cfg, config, run, console)


if __name__ == "__main__":
    main()
