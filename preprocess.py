"""Raw recordings in, finished artifacts on disk out.

python preprocess.py preprocess=<stage> input_dir=… output_dir=…
"""

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src import schema
from src.runs.user_errors import exit_with, user_errors
from src.storage.batch import selection

schema.register()


@hydra.main(config_path="conf", config_name="preprocess", version_base="1.3")
def main(cfg: DictConfig) -> None:
    console = Console()
    stage, chosen = OmegaConf.to_container(cfg), ("only", "part", "parts")
    assert isinstance(stage, dict)
    with user_errors(console), selection(**{name: stage.pop(name) for name in chosen}):
        summary = instantiate(stage, _convert_="all")
    for failure in summary.failures:
        console.print(failure.detail, end="", markup=False, highlight=False, soft_wrap=True)
    console.print(summary.table())
    exit_with(summary.exit_code)


if __name__ == "__main__":
    main()
