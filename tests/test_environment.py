import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

TARGETS = ("help", "train", "test", "test-slow", "lint", "lock", "clean")


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock(repository) -> dict[str, Version]:
    lines = [line for line in (repository / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = [line.split("==") for line in lines]
    assert all(len(pin) == 2 for pin in pins), "a line that is not name==version"
    assert len({name for name, _ in pins}) == len(pins), "a package pinned twice"
    return {canonicalize_name(name): Version(number) for name, number in pins}


@pytest.fixture(scope="module")
def requirements(project) -> dict[str, Requirement]:
    """What pyproject.toml asks for and the lock answers: dependencies, every extra, the developers' tools."""
    extras = project["project"]["optional-dependencies"].values()
    lines = [*project["project"]["dependencies"], *chain(*extras), *project["dependency-groups"]["dev"]]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def fresh(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_the_four_imports_work_together():
    done = fresh("import torch, torchaudio, librosa, tensorflow\nprint(torch.__version__)")
    assert done.returncode == 0, done.stderr
    assert Version(done.stdout).public == "2.13.0"


@pytest.mark.slow
def test_they_work_in_the_other_order_too():
    done = fresh("import tensorflow, librosa, torchaudio, torch")
    assert done.returncode == 0, done.stderr


def test_neuralib_is_the_one_of_calcium_imaging():
    providers = set(packages_distributions()["neuralib"])
    assert "neuralib-imaging" in providers
    assert providers <= {"neuralib-imaging", "neuralib-utils"}


class TestLock:
    def test_it_answers_every_requirement(self, lock, requirements):
        unanswered = [str(r) for name, r in requirements.items() if lock.get(name) not in r.specifier]
        assert unanswered == []

    def test_the_small_lock_is_a_part_of_it_without_tensorflow(self, repository, lock):
        text = (repository / "setup" / "without_cascade.lock").read_text()
        small = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
        assert {name: lock.get(canonicalize_name(name)) for name in small} == {n: Version(v) for n, v in small.items()}
        assert {"tensorflow", "neuralib-imaging", "keras", "opencv-python"}.isdisjoint(small)
        assert "torch" in small

    def test_it_is_what_is_installed(self, lock):
        wrong = {name: version(name) for name, pin in lock.items() if Version(version(name)).public != str(pin)}
        assert wrong == {}

    def test_what_is_installed_agrees_with_itself(self):
        done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    def test_it_names_no_place_and_no_build_of_torch(self, repository, lock):
        assert not re.search(r"[/@+]|--", re.sub("#.*", "", (repository / "requirements.lock").read_text()))
        assert not [name for name in lock if name.startswith(("nvidia-", "cuda-", "triton"))]

    def test_the_malware_classifier_is_not_in_it(self, lock):
        assert "neuralib" not in lock
        assert "neuralib-imaging" in lock


class TestProject:
    def test_python_is_3_11_or_3_12(self, project):
        assert project["project"]["requires-python"] == ">=3.11,<3.13"

    def test_the_compromised_lightning_is_excluded_by_name(self, requirements):
        excluded = {s.version for s in requirements["pytorch-lightning"].specifier if s.operator == "!="}
        assert {"2.6.2", "2.6.3"} <= excluded

    def test_torch_is_pinned(self, requirements):
        assert str(requirements["torch"].specifier) == "==2.13.0"


@pytest.fixture
def copy(tmp_path, repository) -> Path:
    """The files that the installer reads, in a folder with nothing installed."""
    (tmp_path / "setup").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "setup/torchaudio_without_cuda.py"):
        (tmp_path / name).write_text((repository / name).read_text())
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(["make", "-C", folder, *arguments], capture_output=True, text=True, env=environment)


class TestMakefile:
    @pytest.mark.parametrize("target", TARGETS)
    def test_the_target_is_there_and_explained(self, repository, target):
        assert re.search(rf"^{target} +\w", make(repository).stdout, re.MULTILINE)

    @pytest.mark.parametrize("target", ["train", "test", "test-slow", "lint"])
    def test_a_bare_machine_installs_first(self, copy, target):
        commands = make(copy, "--dry-run", target).stdout
        assert commands.index("pip install") < commands.index("torchaudio_without_cuda.py")
        assert "requirements.lock" in commands

    @pytest.mark.parametrize("target", ["train", "test", "test-slow", "lint"])
    def test_the_second_call_installs_nothing(self, copy, target):
        (copy / ".venv").mkdir()
        (copy / ".venv" / ".installed").touch()
        assert "pip" not in make(copy, "--dry-run", target).stdout

    def test_a_new_lock_is_installed(self, copy):
        (copy / ".venv").mkdir()
        (copy / ".venv" / ".installed").touch()
        os.utime(copy / ".venv" / ".installed", (1, 1))
        assert "pip install" in make(copy, "--dry-run", "lint").stdout

    def test_lint_comes_before_the_tests(self, repository):
        commands = make(repository, "--dry-run", "test").stdout
        assert commands.index("ruff check") < commands.index("mypy") < commands.index("pytest")

    @pytest.mark.parametrize("python", ["", "/bin/false"])
    def test_without_a_fitting_python_it_says_what_is_needed(self, copy, python):
        done = make(copy, f"PYTHON={python}", "lint")
        assert done.returncode != 0
        assert "neurolit needs Python 3.11 or 3.12" in done.stderr
        assert not (copy / ".venv").exists()


def test_continuous_integration_runs_the_suite(repository):
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
