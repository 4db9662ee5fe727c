"""Train one experiment: ``python train.py experiment=sleep_cnn``; the same command continues an interrupted run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig
from rich.console import Console

from src import schema
from src.runs.command import run_verb
from src.storage.manifest import provenance
from src.storage.progress import say, show

if TYPE_CHECKING:
    from src.runs.folder import RunFolder

schema.register_models()


def train(cfg: DictConfig, config: dict[str, Any], run: RunFolder, console: Console) -> float:
    """Fit, choose the best checkpoint on validation, test it once, export it; returns the validation score."""
    # Lightning takes seconds to import. A mistake on the command line is reported before that.
    from src.models.bundle import export_bundle
    from src.reports.media import draw_media
    from src.reports.tables import ResultsTable, summary_table
    from src.runs.assemble import adopt_checkpoint, assemble, best_score, make_trainer
    from src.runs.folder import data_identity
    from src.runs.tracking import log_bundle, log_media, merge_csv, open_loggers

    datamodule, model = assemble(cfg)
    run.settle(data_identity(datamodule))
    run.write("split.json", datamodule.split.to_dict())
    show(console, summary_table(datamodule.summary()))
    if cfg.compile:
        model.network.compile()
    with open_loggers(cfg.logger, run, config=config, console=console) as loggers:
        trainer = make_trainer(cfg, folder=run.path, monitor=model.monitor, loggers=loggers)
        trainer.fit(model, datamodule, ckpt_path=run.last_checkpoint(), weights_only=True)
        score = best_score(trainer)
        adopt_checkpoint(model, run.checkpoints / "best.ckpt")
        metrics = {"best_epoch_score": score}
        if not run.swept:  # a sweep tests the configuration it has chosen, once
            trainer.test(model, datamodule, verbose=False)
            metrics |= model.test_metrics()
        if not trainer.is_global_zero:
            return score
        datamodule.trainer = None  # from here on one process sees all of the validation data
        bundle = model.to_bundle(datamodule, metrics, provenance() | {"run": run.key})
        export_bundle(run.bundle, bundle, model.network.state_dict())
        log_bundle(loggers, run.bundle, metrics)
        if not run.swept:
            log_media(loggers, draw_media(run.path / "figures", getattr(model, "media", dict)()))
    merge_csv(run)
    if not run.swept:
        run.write("results.json", {"metrics": metrics, "rows": model.results()})
        show(console, ResultsTable(model.results(), title=f"{cfg.name}: held-out test data"))
    left_out: list[str] = getattr(datamodule, "left_out", list)()
    monitor, mode = model.monitor
    run.finish(
        metrics=metrics, score=score, monitor=monitor, mode=mode, epochs=trainer.current_epoch, left_out=left_out
    )
    say(console, f"data    {datamodule.origin()}\nrun     {run.path}\nbundle  {run.bundle}")
    return score


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float:
    from src.runs.job import run_job

    return run_job(cfg, train)


if __name__ == "__main__":
    run_verb(main, "train")
