"""The house rules that a machine can check: which room may know which, and what no file may contain."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

VERBS = ("train", "infer", "preprocess")
SOURCES = sorted((REPOSITORY / "src").rglob("*.py"))
CODE = [*SOURCES, *(REPOSITORY / f"{verb}.py" for verb in VERBS if (REPOSITORY / f"{verb}.py").exists())]
LIGHTNING = ("pytorch_lightning", "lightning", "torchmetrics")
READERS = ("h5py", "hdf5plugin", "edfio", "isal", "neo", "spikeinterface")
HEAVY = ("tensorflow", "librosa", "wandb", "torchaudio", "neuralib")
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "shared", "stuff", "lib"}

ROOMS = ("storage", "recordings", "simulate", "preprocess", "datamodules", "models", "predict", "reports", "runs")
MAY_IMPORT = {
    "storage": (),
    "recordings": ("storage",),
    "simulate": ("storage", "recordings", "preprocess"),
    "preprocess": ("storage", "recordings", "simulate", "reports"),
    "datamodules": ("storage", "recordings", "simulate", "preprocess"),
    "models": ("storage", "recordings", "preprocess"),
    "predict": ("storage", "recordings", "preprocess", "models", "reports"),
    "reports": ("storage", "recordings"),
    "runs": ("storage", "models", "reports"),
}
"""Room → the rooms it may import, besides ``src.signals``; CONTRIBUTING.md has the same table."""

PACKAGES = {
    "storage": (*LIGHTNING, "wandb", "torch"),
    "recordings": (*LIGHTNING, "wandb", "torch"),
    "simulate": (*LIGHTNING, "wandb"),
    "preprocess": (*LIGHTNING, "wandb"),
    "datamodules": ("wandb",),
    "models": (*READERS, "wandb"),
    "reports": (*READERS, "wandb"),
    "predict": ("wandb",),
}
FORBIDDEN = {
    f"src/{room}": (
        *PACKAGES.get(room, ()),
        *(f"src.{other}" for other in ROOMS if other != room and other not in MAY_IMPORT[room]),
    )
    for room in ROOMS
}
"""Room → what nothing in it may import."""

LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
LOADED = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)"


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every imported module by its full name, and whether it is imported as soon as the file is."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "a relative import"
                yield from ((f"{child.module}.{alias.name}", at_once) for alias in child.names)
            elif isinstance(child, LATER) or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
                yield from walk(child, False)
            else:
                yield from walk(child, at_once)

    yield from walk(tree, True)


def imported(path: Path) -> list[tuple[str, bool]]:
    return list(imports(ast.parse(path.read_text(), str(path))))


def belongs(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def offenders(paths: list[Path], packages: tuple[str, ...], *, at_once: bool = False) -> list[str]:
    """Which of the files import one of the packages, or import it as soon as they are imported."""
    return [
        f"{name_of(path)} imports {module}"
        for path in paths
        for module, immediate in imported(path)
        if belongs(module, packages) and (immediate or not at_once)
    ]


def texts() -> list[Path]:
    """Every text file of the repository, tracked or about to be."""
    suffixes = {".py", ".md", ".yaml", ".toml", ".lock", ".sh", ".cff", ".json", ".csv", ""}
    hidden = {".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    results = {"artifacts", "runs", "multirun", "outputs", "predictions", "wandb", "build", "__pycache__"}
    found = []
    for path in REPOSITORY.rglob("*"):
        parts = path.relative_to(REPOSITORY).parts
        if not hidden.isdisjoint(parts) or parts[0] in results or "__pycache__" in parts:
            continue
        if path.suffix in suffixes and path.is_file():
            found.append(path)
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_nothing_flows_back(room):
    assert offenders(sorted((REPOSITORY / room).rglob("*.py")), FORBIDDEN[room]) == []


def test_nobody_imports_the_verbs():
    assert offenders(CODE, VERBS) == []


def test_only_signals_is_known_to_every_room():
    alone = {f"src.{path.stem}" for path in (REPOSITORY / "src").glob("*.py")} - {"src.__init__", "src.signals"}
    inner = [path for path in SOURCES if path.parent != REPOSITORY / "src"]
    assert offenders(inner, tuple(alone)) == ["src/runs/help.py imports src.schema"]  # help is written from the schemas


def test_heavy_packages_are_imported_where_they_are_used():
    assert offenders(CODE, HEAVY, at_once=True) == []


def test_tensorflow_stays_in_the_room_of_cascade():
    allowed = REPOSITORY / "src" / "preprocess" / "cascade"
    others = [path for path in CODE if path.parent != allowed]
    assert offenders(others, ("tensorflow", "keras", "neuralib")) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_starts_without_the_heavy_packages(verb):
    done = subprocess.run([sys.executable, "-c", LOADED, verb], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    # torchmetrics, which lightning imports, touches librosa's empty shell: two small modules, nothing behind them.
    assert {m for m in loaded if belongs(m, HEAVY)} <= {"librosa", "librosa.version"}
    assert verb != "preprocess" or "torch" not in loaded


def test_no_file_is_longer_than_four_hundred_lines():
    long = {name_of(p): n for p in CODE if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_there_are_no_drawers():
    names = {part for path in CODE for part in path.relative_to(REPOSITORY).with_suffix("").parts}
    assert names & DRAWERS == set()


def test_constructors_name_their_arguments():
    """Their signature is the schema of a configuration block, so that a typo there is an error."""
    wrong = [
        f"{name_of(path)}: {owner.name}"
        for path in SOURCES
        for owner in ast.walk(ast.parse(path.read_text()))
        if isinstance(owner, ast.ClassDef)
        for method in owner.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__" and method.args.kwarg is not None
    ]
    assert wrong == []


def test_every_module_has_a_test_file_named_after_it():
    tests = [path.stem for path in (REPOSITORY / "tests").rglob("test_*.py")]
    untested = [
        name_of(p)
        for p in SOURCES
        if p.stem != "__init__" and not any(re.search(rf"_{p.stem}(_|$)", test) for test in tests)
    ]
    assert untested == []


def test_no_text_names_a_place_on_somebody_s_machine():
    places = "|".join(("work", "root", "home", "Users", "tmp", "mnt", "opt"))
    place = re.compile(rf"(?<![\w.*}})\]])/(?:{places})/\w")
    named = {name_of(p): match.group() for p in texts() if (match := place.search(p.read_text(errors="ignore")))}
    assert named == {}


def test_an_import_is_seen_wherever_it_hides():
    """The checks above are worth as much as the reader they share."""
    code = (
        "import a\nfrom b import c\ndef f():\n    import d\nif TYPE_CHECKING:\n    import e\nclass G:\n    import h\n"
    )
    assert list(imports(ast.parse(code))) == [("a", True), ("b.c", True), ("d", False), ("e", False), ("h", True)]
