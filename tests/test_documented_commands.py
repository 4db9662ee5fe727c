"""Every command of README and docs/ can be typed as it is printed, and README's examples in Python run."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from preprocess import as_list
from src import schema
from src.models.bundle import NETWORKS
from src.models.sleep.stager import SleepStager
from src.preprocess.lfp import parameters
from src.runs.command import check_command
from src.runs.targets import check
from src.signals import BadInput, SignalSpec
from tests.composed import composed
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return [block for name, block in BLOCK.findall(text) if name == language]


def commands(text: str) -> list[list[str]]:
    """The words of every command in a text's blocks; a backslash at the end of a line goes on in the next one."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def first_section(page: Path) -> str:
    """A page up to its second heading; the whole README."""
    text = page.read_text()
    return text if page.name == "README.md" else "\n## ".join(text.split("\n## ")[:2])


def printed() -> list:
    """Every command; what stands further down on a page than its first section is checked by make test-slow."""
    found = []
    for page in PAGES:
        first = commands(first_section(page))
        for words in commands(page.read_text()):
            name = f"{page.name}: {' '.join(words)[:60]}"
            found.append(pytest.param(page.name, words, id=name, marks=[] if words in first else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("page", "words"), printed())
def test_a_printed_command_is_one_that_runs(page, words):
    schema.register()
    match words:
        case ["make", *targets]:
            rules = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
            assert {t for t in targets if "=" not in t} <= set(rules)
        case ["source", ".venv/bin/activate"]:
            pass
        case ["export", *variables]:
            assert all("=" in variable for variable in variables)
        case ["python", ("train.py" | "infer.py" | "preprocess.py") as script, *arguments] if (
            "--config-dir" not in words
        ):
            # Brackets around a whole word mark an option, and preprocess.py takes skip=a,b.
            given = [as_list(word[1:-1] if word.startswith("[") else word) for word in arguments if word != "…"]
            check_command(script.removesuffix(".py"), given)
        case ["python", "-c", code]:
            ast.parse(code)
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None
        case ["python", script, *_]:
            assert (REPOSITORY / script).is_file()
        case _:
            pytest.fail(f"{page} prints {shlex.join(words)}, which nobody has checked")


def test_every_page_has_one_way_to_call_python():
    assert [page.name for page in PAGES if ".venv/bin/python" in page.read_text()] == []


def test_a_wrong_command_would_be_noticed():
    with pytest.raises(BadInput):
        test_a_printed_command_is_one_that_runs("page", ["python", "train.py", "experiment=sleep_cnn", "lrr=1"])


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_printed_python_imports_what_exists(page):
    for text in blocks(page.read_text(), "python"):
        if text.startswith("#"):  # an excerpt of a file, not a program
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("src."):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def excerpts() -> dict[str, str]:
    """The files that CONTRIBUTING writes, by the path in their first line."""
    found = {}
    for _, text in BLOCK.findall((REPOSITORY / "CONTRIBUTING.md").read_text()):
        first, _, rest = text.partition("\n")
        found[first.strip("# ").partition(",")[0]] = rest
    return found


def test_the_network_and_the_experiment_of_contributing_work(tmp_path, monkeypatch):
    files = excerpts()
    mine = ModuleType("src.models.sleep.mine")
    exec(files["src/models/sleep/mine.py"], mine.__dict__)
    mine.MyNet.__module__ = mine.__name__
    monkeypatch.setitem(sys.modules, mine.__name__, mine)
    monkeypatch.setitem(NETWORKS, "my_net", (mine.__name__, "MyNet"))
    monkeypatch.setattr(SleepStager, "kinds", (*SleepStager.kinds, "my_net"))
    for name in ("conf/model/my_net.yaml", "conf/experiment/my_question.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(files[name])
    cfg = composed("train", "experiment=my_question", f"hydra.searchpath=[file://{tmp_path / 'conf'}]")
    check(cfg)
    signal = SignalSpec(("EEG",), 100.0, 30.0, "dB", ("channel", "frequency", "time"), (1, 20, 29))
    model = instantiate(cfg.model, signal=signal.to_dict(), classes=["a", "b"])
    assert model.network(torch.randn(4, 1, 20, 29)).shape == (4, 2)
    assert model.network.layers[1].out_features == 64


def test_the_format_of_contributing_is_the_one_that_is_there():
    name = "src/recordings/extracellular/formats.py"
    row = excerpts()[name].strip().removeprefix("(").removesuffix(",)")  # the formatter makes a tuple of a single row
    assert row in (REPOSITORY / name).read_text()


def test_the_step_of_contributing_works(tmp_path, monkeypatch):
    files = excerpts()
    made = dict(vars(parameters))
    exec(files["src/preprocess/lfp/parameters.py"], made)
    monkeypatch.setattr(parameters, "MyStepParams", made["MyStepParams"], raising=False)
    mine = ModuleType("src.preprocess.lfp.my_step")
    exec(files["src/preprocess/lfp/my_step.py"], mine.__dict__)
    monkeypatch.setitem(sys.modules, mine.__name__, mine)
    (tmp_path / "traces").mkdir()
    np.save(tmp_path / "traces" / "rat1.npy", np.full(10_000, 2.0))
    given = {"input_dir": str(tmp_path / "traces"), "output_dir": str(tmp_path / "power"), "window_s": 3}
    params: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(made["MyStepParams"]), given))
    assert params.own() == {"window_s": 3.0}
    assert params.run().exit_code == 0
    assert np.load(tmp_path / "power" / "rat1" / "power.npy").tolist() == [4.0, 4.0]


@pytest.mark.slow
def test_the_first_commands_of_readme_run_as_printed(tmp_path):
    wanted = [w for w in commands(PAGES[0].read_text()) if "src.simulate.sleep" in w or "input=nights" in w]
    assert len(wanted) == 2
    for script in ("infer.py", "src", "conf", "pretrained"):
        (tmp_path / script).symlink_to(REPOSITORY / script)
    for words in wanted:
        done = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "predictions" / "SC4001E0-PSG" / "agreement.json").is_file()
