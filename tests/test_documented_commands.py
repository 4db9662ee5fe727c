"""Every command of README and docs/ can be typed as it is printed, and README's examples in Python run."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from preprocess import as_list
from src import schema
from src.runs.command import check_command
from src.signals import BadInput
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def commands(page: Path) -> list[list[str]]:
    """The words of every command in the page's blocks; a backslash at the end of a line goes on in the next one."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [(page.name, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(w)[:60]}" for page, w in COMMANDS])
def test_a_printed_command_is_one_that_runs(page, words):
    schema.register()
    match words:
        case ["make", *targets]:
            rules = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
            assert {t for t in targets if "=" not in t} <= set(rules)
        case ["source", ".venv/bin/activate"]:
            pass
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
    for text in blocks(page, "python"):
        if text.startswith("#"):  # an excerpt of a file, not a program
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("src."):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.slow
def test_the_first_commands_of_readme_run_as_printed(tmp_path):
    wanted = [w for w in commands(PAGES[0]) if "src.simulate.sleep" in w or "input=nights" in w]
    assert len(wanted) == 2
    for script in ("infer.py", "src", "conf", "pretrained"):
        (tmp_path / script).symlink_to(REPOSITORY / script)
    for words in wanted:
        done = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "predictions" / "SC4001E0-PSG" / "report.html").is_file()
