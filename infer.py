"""Predict with a bundle: ``python infer.py bundle=runs/sleep_cnn/latest input=night.edf``."""

import gc
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src import schema
from src.runs.command import exit_with, run_verb, user_errors
from src.signals import BadInput, SourceOptions
from src.storage.batch import Summary
from src.storage.progress import say, show

schema.register_models()

PREDICTORS = {
    "sleep_staging": "src.predict.sleep",
    "spike_detection": "src.predict.spikes",
    "grid_forecasting": "src.predict.grids",
}
"""Task of a bundle → the module whose ``predict`` runs it."""

METHODS = {
    "bank": ("src.predict.spikes", "sort_with_bank"),
    "discover": ("src.predict.spike_discovery", "discover_units"),
    "lfp_states": ("src.predict.lfp", "score_states"),
}
"""Method that needs no bundle → module and function, called with the input, the output folder and the options."""

READS = "source_options"
"""How predictors of spikes and LFP take the block ``source``."""

LFP_METHOD = "lfp_states"
"""What scores LFP where neither a bundle nor a method is named."""

PRETRAINED = Path(__file__).resolve().parent / "pretrained" / "sleep_human"
"""What predicts where neither a bundle nor a method is named: human sleep."""

SIMULATED = "SIMULATED  it was trained on simulated data: its scores and its results say nothing about recordings"


def known_options(predict: Callable[..., Summary]) -> list[str]:
    """What may be given to ``predict`` under ``options``: what its module says, else its keyword arguments."""
    listed = [p.name for p in signature(predict).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known: list[str] = getattr(import_module(predict.__module__), "OPTIONS", {}).get(predict.__name__, listed)
    return known


def given_options(cfg: DictConfig, predict: Callable[..., Summary], task: str) -> dict[str, Any]:
    """The options that were given, all of which ``predict`` has to know, and the block ``source`` if it takes that."""
    plain: Any = OmegaConf.to_container(cfg.options)
    given = {name: value for name, value in plain.items() if value is not None}
    known = known_options(predict)
    for name in given:
        if name not in known:
            choices = ", ".join(n for n in known if n != READS)
            raise BadInput(f"options.{name}", f"is no option of {task}", f"choose from: {choices}")
    source = OmegaConf.to_object(cfg.source)
    if READS in known:
        return given | {READS: source}
    if source != SourceOptions():
        raise BadInput("source", f"{task} takes none of its keys", "leave it out")
    return given


def predict_with_method(cfg: DictConfig) -> Summary:
    """Run one of :data:`METHODS`."""
    if cfg.method not in METHODS:
        raise BadInput("method", f"unknown method {cfg.method!r}", f"choose from: {', '.join(METHODS)}")
    if cfg.bundle is not None:
        raise BadInput("bundle", f"method={cfg.method} takes no bundle", "give either a method or a bundle")
    module, name = METHODS[cfg.method]
    predict = getattr(import_module(module), name)
    options = given_options(cfg, predict, f"method={cfg.method}")
    if "labelled" in signature(predict).parameters:
        if cfg.labelled is None:
            raise BadInput("labelled", "is missing", "give a labelled recording: labelled=D1.mat")
        options["labelled"] = cfg.labelled
    elif cfg.labelled is not None:
        raise BadInput("labelled", f"method={cfg.method} takes no labelled recording", "leave it out")
    summary: Summary = predict(Path(cfg.input), Path(cfg.output_dir), **options)
    return summary


def predict_with_bundle(cfg: DictConfig, console: Console) -> Summary:
    """Predict with the bundle's network, whatever its task; without a bundle LFP by rule, the rest as human sleep."""
    if cfg.labelled is not None:
        raise BadInput("labelled", "a bundle takes no labelled recording", "leave it out, or give method=bank")
    from src.recordings.sleep.nights import is_edf

    source, taken = Path(cfg.input), None
    if cfg.options.kind is None and not is_edf(source):  # no reader of LFP is loaded for a night
        taken = import_module("src.predict.lfp").lfp_input(source)
        if taken is not None and cfg.bundle is None:
            say(console, f"input      {source} is taken for {taken}")
            return predict_with_method(OmegaConf.merge(cfg, {"method": LFP_METHOD}))  # type: ignore[arg-type]
        if cfg.bundle is None:
            import_module("src.predict.contents").require_sleep(source)
    # These load torch: a mistake on the command line is reported before that.
    from src.models.bundle import load_bundle

    given = str(cfg.bundle or PRETRAINED)
    bundle = load_bundle(import_module("src.runs.hub").fetch(given) if given.startswith("hf:") else given)
    if bundle.task not in PREDICTORS:
        raise BadInput(cfg.bundle, f"is for the unknown task {bundle.task!r}", "update neurolit")
    predict = import_module(PREDICTORS[bundle.task]).predict
    if taken is not None and bundle.task == "sleep_staging":
        say(console, f"input      {source} is taken for {taken}")
        predict = import_module("src.predict.lfp").predict
    say(console, f"bundle     {bundle.folder}, {bundle.origin}")
    if not bundle.origin.recorded:
        say(console, SIMULATED, style="bold yellow")
    options = given_options(cfg, predict, bundle.task)
    summary: Summary = predict(bundle, Path(cfg.input), Path(cfg.output_dir), **options)
    return summary


def show_contents(cfg: DictConfig, console: Console) -> None:
    """Print what the input, or each recording in it, holds and which bundles it fits."""
    from src.predict.contents import bundle_rows, channel_rows, recordings_at
    from src.reports.tables import ResultsTable

    paths = recordings_at(Path(cfg.input))
    recordings: list[list[dict[str, Any]]] = []
    for path in paths:
        try:
            found = channel_rows(path, cast(SourceOptions, OmegaConf.to_object(cfg.source)))
        except BadInput as error:
            if len(paths) == 1:
                raise
            say(console, f"error      {error}", style="red")
            continue
        if found:  # a scoring in EDF has no channels
            recordings.append(found)
            say(console, str(path), style="italic")  # a title would be broken over lines
            show(console, ResultsTable(found, title=""))
    places = [Path(__file__).parent / "pretrained", Path(cfg.runs_dir)]
    if bundles := bundle_rows(recordings, places):
        show(console, ResultsTable(bundles, title="bundles"))
    else:
        say(console, f"no bundle in {' or '.join(map(str, places))}: train one with train.py")


@hydra.main(config_path="conf", config_name="infer", version_base="1.3")
def main(cfg: DictConfig) -> None:
    console = Console()
    with user_errors(console):
        if cfg.list:
            show_contents(cfg, console)
            return
        summary = predict_with_method(cfg) if cfg.method is not None else predict_with_bundle(cfg, console)
    show(console, summary.table())
    for name, lines in summary.values.items():
        if len(summary.values) > 1:
            say(console, f"\n{name}", style="bold")
        say(console, "\n".join(lines))
    exit_with(summary.exit_code)


if __name__ == "__main__":
    gc.set_threshold(50_000)  # the imports make a million objects and no garbage: 0.2 s less until the first result
    run_verb(main, "infer")
