"""Run ``train.py`` in this process, as its command line would."""

import runpy
import sys
from pathlib import Path
from unittest.mock import patch

from hydra.core.global_hydra import GlobalHydra

from tests.conftest import REPOSITORY
from tests.runs.toy import CONFIG


def train(folder: Path, *arguments: str) -> Path:
    """``python train.py <arguments>`` on the toy experiment, with its results in ``folder``; the folder of the run."""
    execute(command(folder, *arguments))
    return (folder / "runs" / "toy" / "latest").resolve()


def execute(line: list[str]) -> None:
    """Run the script ``line[0]`` with the rest as its arguments."""
    with patch.object(sys, "argv", line):
        try:
            runpy.run_path(line[0], run_name="__main__")
        finally:
            GlobalHydra.instance().clear()


def command(folder: Path, *arguments: str) -> list[str]:
    """The command line of :func:`train`, without the interpreter."""
    (folder / "conf" / "experiment").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "experiment" / "toy.yaml").write_text(CONFIG)
    line = [str(REPOSITORY / "train.py"), "--config-dir", str(folder / "conf")]
    logger = [] if any(a.startswith("logger") for a in arguments) else ["logger=csv"]
    return [*line, *arguments, *logger, "experiment=toy", f"runs_dir={folder / 'runs'}"]
