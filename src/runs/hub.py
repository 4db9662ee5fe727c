"""Bundles on the Hugging Face Hub: ``python -m src.runs.hub push runs/sleep_cnn/latest owner/name``.

``infer.py bundle=hf:owner/name`` fetches one. A bundle is data: a description in JSON and weights in safetensors, both
checked against their checksums when they are loaded.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from src.models.bundle import DESCRIPTION, WEIGHTS, Bundle, load_bundle
from src.signals import BadInput
from src.storage.manifest import MANIFEST

PREFIX = "hf:"
FILES = (DESCRIPTION, WEIGHTS, MANIFEST)
CARD = "README.md"


def fetch(name: str, cache_dir: str | Path = "artifacts") -> Path:
    """The folder of a bundle of the Hub, downloaded where it has changed.

    Parameters
    ----------
    name
        ``hf:owner/name``, or ``hf:owner/name@revision``.
    cache_dir
        Holds ``hub/owner/name``.

    Raises
    ------
    BadInput
        If there is no such bundle, no network, or a file differs from its checksum.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    _check(repository)
    folder = Path(cache_dir) / "hub" / repository
    with _hub(name) as hub:
        hub.snapshot_download(
            repository,
            revision=revision or None,
            local_dir=folder,
            allow_patterns=list(FILES),
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    load_bundle(folder)
    return folder


def push(bundle: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a bundle with a card; returns its address.

    Raises
    ------
    BadInput
        If the bundle is damaged, or the Hub does not take it.
    """
    _check(repository)
    loaded = load_bundle(bundle)
    assert loaded.folder is not None
    with _hub(repository) as hub, TemporaryDirectory() as part:
        for name in FILES:
            shutil.copyfile(loaded.folder / name, Path(part) / name)
        (Path(part) / CARD).write_text(card(loaded, repository))
        api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(folder_path=part, repo_id=repository, commit_message="Upload a neurolit bundle")
        return f"{api.endpoint}/{repository}"


def card(bundle: Bundle, repository: str) -> str:
    """The page of a bundle on the Hub: what it was trained on, what it reads, its scores."""
    signal = bundle.signal
    scores = [f"| {n} | {v:.3g} |" for n, v in bundle.metrics.items() if n.startswith("test/") and _is_number(v)]
    band = f"{signal.fs_hz:g} Hz, {signal.units}, axes {', '.join(signal.axes)} {tuple(signal.shape)}"
    trained = f"It was {bundle.origin}."
    if not bundle.origin.recorded:
        trained += " **Its scores say nothing about recordings.**"
    lines = [
        *("---", "library_name: neurolit", "license: other", f"tags: [neurolit, {bundle.task}]", "---", ""),
        *(f"# {repository.partition('/')[2]}", "", f"A network for {bundle.task.replace('_', ' ')}. {trained}", ""),
        f"Input: channels {', '.join(signal.channels)}; {band}. Classes: {', '.join(bundle.classes)}.",
        *("", "```bash", f"python infer.py bundle={PREFIX}{repository} input=<recording>", "```", ""),
        *("| score on held-out data | |", "| --- | --: |", *scores, "", f"Weights: SHA-256 {bundle.weights_sha256}."),
    ]
    return "\n".join(lines) + "\n"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(repository: str) -> None:
    owner, slash, name = repository.partition("/")
    if not (owner and slash and name) or "/" in name or ".." in repository:
        raise BadInput(repository, "is no name of a repository on the Hub", "give owner/name")


@contextmanager
def _hub(name: str) -> Iterator[Any]:
    """The library of the Hub, whose errors become one line."""
    try:
        library = import_module("huggingface_hub")
    except ImportError as error:
        raise BadInput("huggingface_hub", "is not installed", "type: pip install huggingface_hub") from error
    try:
        yield library
    except Exception as error:  # of the library, of HTTP or of the network, by version
        if type(error).__name__ in ("LocalEntryNotFoundError", "ConnectError", "ConnectionError", "ConnectTimeout"):
            hint = "check the network, or give a bundle's folder: bundle=<folder>"
            raise BadInput(name, "the Hub cannot be reached", hint) from error
        problem = "the Hub does not answer as expected (" + " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BadInput(name, f"{problem})", "check the name, the network and hf login") from error


def main(arguments: list[str] | None = None) -> int:
    """Upload a bundle."""
    parser = argparse.ArgumentParser(prog="python -m src.runs.hub", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    pushed = commands.add_parser("push", help="upload a bundle")
    pushed.add_argument("bundle", help="folder of a bundle or of its run")
    pushed.add_argument("repository", help="owner/name")
    pushed.add_argument("--private", action="store_true")
    given = parser.parse_args(arguments)
    try:
        print(push(given.bundle, given.repository, private=given.private))
    except BadInput as error:
        print(f"error {error}")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
