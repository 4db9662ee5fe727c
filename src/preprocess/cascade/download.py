"""Finding a CASCADE package: in the folder of models, or from the address in CASCADE's catalogue.

CASCADE publishes no checksums. What can be checked is: the announced size, a sane total size, every
member's own checksum in the zip file, and where its members would land. The SHA-256 of what was
fetched is written beside the package, so that a later download can be compared.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from src.preprocess.cascade.package import CONFIG_FILE
from src.signals import BadInput
from src.storage.fingerprint import file_digest
from src.storage.lock import folder_lock
from src.storage.output import replacement

CATALOGUE_FILE = "available_models.yaml"
CATALOGUE_URL = (
    "https://raw.githubusercontent.com/HelmchenLabSoftware/Cascade/master/Pretrained_models/available_models.yaml"
)
DOWNLOAD_RECORD = "download.json"
LARGEST_ZIP = 200 << 20
LARGEST_PACKAGE = 600 << 20
_TIMEOUT_S = 30
_SUFFIXES = {".h5", ".yaml", ".yml", ".txt", ".md", ".json"}
_RATE = re.compile(r"_(\d+(?:\.\d+)?)Hz(?:_|$)")


def fetch_package(model: str, models_dir: Path, catalogue_url: str = CATALOGUE_URL) -> Path:
    """Folder of a package, downloaded into ``models_dir/<model>`` if it is not there.

    Raises
    ------
    BadInput
        If the name is not a plain folder name, the catalogue does not know it, or the download fails
        or is damaged; the message says where to put the package by hand.
    """
    if not model or PurePosixPath(model).name != model or model.startswith(".") or "\\" in model:
        raise BadInput(repr(model), "is no name of a CASCADE model", "give one such as Global_EXC_2Hz_smoothing500ms")
    folder = models_dir / model
    if (folder / CONFIG_FILE).is_file():
        return folder
    with folder_lock(folder):
        if not (folder / CONFIG_FILE).is_file():
            with replacement(folder, "models_dir") as part:
                _download(_link(model, folder, catalogue_url, part), part, folder)
    return folder


def models_for_rate(models_dir: Path, fs_hz: float, tolerance: float) -> list[str]:
    """Models whose name states a frame rate within ``tolerance`` (relative) of ``fs_hz``; local ones first."""
    local = sorted(p.parent.name for p in models_dir.glob(f"*/{CONFIG_FILE}") if any(p.parent.glob("*.h5")))
    listed = [name for name in _local_catalogue(models_dir) if name not in local]
    rates = {name: float(match[1]) for name in [*local, *listed] if (match := _RATE.search(name))}
    return [name for name, rate in rates.items() if abs(fs_hz - rate) <= tolerance * rate * (1 + 1e-9)]


def _local_catalogue(models_dir: Path) -> dict[str, Any]:
    path = models_dir / CATALOGUE_FILE
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _link(model: str, folder: Path, catalogue_url: str, part: Path) -> str:
    entries = _local_catalogue(folder.parent)
    if model not in entries:
        entries = {**entries, **_fetch_catalogue(folder, catalogue_url, part / CATALOGUE_FILE)}
    entry = entries.get(model)
    link = entry.get("Link") if isinstance(entry, dict) else None
    if not isinstance(link, str):
        raise BadInput(
            folder,
            f"is not there, and CASCADE's catalogue has no model {model}",
            f"check the name, or put {CONFIG_FILE} and Model_NoiseLevel_*.h5 into this folder",
        )
    return link


def _fetch_catalogue(folder: Path, url: str, path: Path) -> dict[str, Any]:
    _get(url, path, folder, 4 << 20)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise _by_hand(folder, f"CASCADE's catalogue at {url} cannot be read") from error
    finally:
        path.unlink(missing_ok=True)
    return entries if isinstance(entries, dict) else {}


def _download(url: str, part: Path, folder: Path) -> None:
    archive = part / "package.zip"
    _get(url, archive, folder, LARGEST_ZIP)
    _unpack(archive, part, folder)
    record = {
        "url": url,
        "zip_bytes": archive.stat().st_size,
        "zip_sha256": file_digest(archive),
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (part / DOWNLOAD_RECORD).write_text(json.dumps(record, indent=2) + "\n")
    archive.unlink()


def _get(url: str, path: Path, folder: Path, largest: int) -> None:
    import requests

    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            announced = int(answer.headers.get("Content-Length", -1))
            if announced > largest:
                raise _by_hand(folder, f"{url} announces {announced} bytes, more than any CASCADE package has")
            received = 0
            with path.open("wb") as handle:
                for chunk in answer.iter_content(1 << 20):
                    received += len(chunk)
                    if received > largest:
                        raise _by_hand(folder, f"{url} sends more than {largest} bytes")
                    handle.write(chunk)
            encoded = "Content-Encoding" in answer.headers
            if announced >= 0 and not encoded and received != announced:
                raise _by_hand(folder, f"{url} broke off after {received} of {announced} bytes")
    except requests.RequestException as error:
        raise _by_hand(folder, f"it could not be downloaded from {url} ({type(error).__name__})") from error


def _by_hand(folder: Path, reason: str) -> BadInput:
    return BadInput(
        folder,
        f"the CASCADE model is not there and {reason}",
        f"put {CONFIG_FILE} and the Model_NoiseLevel_*.h5 of the model into this folder by hand, or train one",
    )


def _unpack(archive: Path, target: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            for member in members:
                _check_member(member, folder)
            if sum(member.file_size for member in members) > LARGEST_PACKAGE:
                raise _by_hand(folder, f"the downloaded zip file unpacks to more than {LARGEST_PACKAGE} bytes")
            roots = {PurePosixPath(m.filename).parent for m in members if PurePosixPath(m.filename).name == CONFIG_FILE}
            if len(roots) != 1:
                raise _by_hand(folder, f"the downloaded zip file holds {len(roots)} times {CONFIG_FILE}, not once")
            root = roots.pop()
            for member in members:
                path = PurePosixPath(member.filename)
                if path.parent == root:
                    (target / path.name).write_bytes(file.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _by_hand(folder, f"the downloaded zip file is damaged ({error})") from error


def _check_member(member: zipfile.ZipInfo, folder: Path) -> None:
    path = PurePosixPath(member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename or link:
        raise _by_hand(folder, f"the downloaded zip file would write outside its folder ({member.filename})")
    if path.suffix.lower() not in _SUFFIXES and not path.name.startswith("."):
        raise _by_hand(folder, f"the downloaded zip file holds {member.filename}, which belongs to no CASCADE model")
