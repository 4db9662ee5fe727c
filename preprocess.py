"""Raw recordings in, finished artifacts on disk out.

python preprocess.py preprocess=<step> input_dir=… output_dir=…
"""

import sys
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src import schema
from src.runs.command import exit_with, run_verb, user_errors
from src.signals import BadInput, require_range
from src.storage.batch import selection
from src.storage.parameters import PreprocessConfig
from src.storage.progress import say, show

schema.register()


@hydra.main(config_path="conf", config_name="preprocess", version_base="1.3")
def main(cfg: DictConfig) -> None:
    console = Console()
    with user_errors(console):
        params: Any = OmegaConf.to_object(cfg)
        if not isinstance(params, PreprocessConfig) or type(params) is PreprocessConfig:
            raise BadInput("preprocess", "names no step of src/schema.py", f"choose from: {', '.join(schema.steps())}")
        require_range("", 0, 2**32 - 1, seed=params.seed)
        with selection(only=params.only, part=params.part, parts=params.parts):
            summary = params.run()
    for failure in (failure for failure in summary.failures if failure.detail):
        say(console, failure.detail.rstrip())
    show(console, summary.table())
    exit_with(summary.exit_code)


def as_list(argument: str, key: str = "skip") -> str:
    """``skip=a,b`` as ``skip=[a,b]``; Hydra takes a comma for a sweep."""
    value = argument.removeprefix(f"{key}=").strip("'\"")
    return argument if not argument.startswith(f"{key}=") or value.startswith("[") else f"{key}=[{value}]"


if __name__ == "__main__":
    if not {"-m", "--multirun"} & set(sys.argv):
        sys.argv[1:] = [as_list(argument) for argument in sys.argv[1:]]
    run_verb(main, "preprocess")
