"""Raw recordings in, finished artifacts on disk out.

python preprocess.py preprocess=<stage> input_dir=… output_dir=…
"""

import sys

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from src import schema
from src.runs.refusal import refusals

schema.register()


@hydra.main(config_path="conf", config_name="preprocess", version_base="1.3")
def main(cfg: DictConfig) -> None:
    console = Console()
    with refusals(console):
        summary = instantiate(cfg, _convert_="all")
    for failure in summary.failures:
        console.print(failure.detail, end="", markup=False, highlight=False, soft_wrap=True)
    console.print(summary.table())
    sys.exit(summary.exit_code)


if __name__ == "__main__":
    main()
