"""Raw recordings in, finished artifacts on disk out.

python preprocess.py preprocess=<step> input_dir=… output_dir=…
"""

import sys

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src import schema
from src.runs.command import run_verb
from src.runs.targets import check_targets
from src.runs.user_errors import exit_with, user_errors
from src.storage.batch import Summary, selection
from src.storage.parameters import PreprocessConfig
from src.storage.progress import say

schema.register()


def run_step(params: PreprocessConfig) -> Summary:
    """Run the step that the parameters belong to."""
    with selection(only=params.only, part=params.part, parts=params.parts):
        return params.run()


def run_target(cfg: DictConfig) -> Summary:
    """Call the function that ``_target_`` names with all keys of the step."""
    check_targets(cfg)
    keys = {name: value for name, value in OmegaConf.to_container(cfg).items() if name not in ("only", "part", "parts")}  # type: ignore[union-attr]
    with selection(only=cfg.only, part=cfg.part, parts=cfg.parts):
        summary: Summary = instantiate(keys, _convert_="all")
        return summary


@hydra.main(config_path="conf", config_name="preprocess", version_base="1.3")
def main(cfg: DictConfig) -> None:
    console = Console()
    with user_errors(console):
        summary = run_target(cfg) if cfg.get("_target_") else run_step(OmegaConf.to_object(cfg))  # type: ignore[arg-type]
    for failure in (failure for failure in summary.failures if failure.detail):
        say(console, failure.detail.rstrip())
    console.print(summary.table())
    exit_with(summary.exit_code)


def as_list(argument: str, key: str = "skip") -> str:
    """``skip=a,b`` as ``skip=[a,b]``; Hydra takes a comma for a sweep."""
    value = argument.removeprefix(f"{key}=").strip("'\"")
    return argument if not argument.startswith(f"{key}=") or value.startswith("[") else f"{key}=[{value}]"


if __name__ == "__main__":
    if not {"-m", "--multirun"} & set(sys.argv):
        sys.argv[1:] = [as_list(argument) for argument in sys.argv[1:]]
    run_verb(main, "preprocess")
