"""Finding a CASCADE package: a folder, a .zip, the folder of models, the shipped ones, or CASCADE's catalogue.

CASCADE publishes no checksums. What can be checked is: the announced size, a sane total size, every
member's own checksum in the zip file, where its members would land, and that every network reads. The SHA-256
of what was fetched is written beside the package, so that a later download can be compared.
"""

import difflib
import json
import re
import stat
import zipfile
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath

import yaml

from src.preprocess.cascade.package import CONFIG_FILE, open_package, plain_yaml, read_config
from src.signals import BadInput
from src.storage.atomic import folder_lock
from src.storage.manifest import read_record
from src.storage.output import plain_name, replacement

CATALOGUE_FILE = "available_models.yaml"
CATALOGUE_URL = (
    f"https://raw.githubusercontent.com/HelmchenLabSoftware/Cascade/master/Pretrained_models/{CATALOGUE_FILE}"
)
DOWNLOAD_RECORD = "download.json"
SHIPPED_DIR = Path(__file__).resolve().parents[3] / "pretrained" / "cascade"
EMBEDDED, EMBEDDED_NAME = "embedded", "Embedded_2Hz_smoothing500ms"
"""Short name of the shipped package that was trained on simulated cells, and its own name."""

SUBSTITUTES = {
    f"Global_EXC_{name}": f"Recorded_EXC_{name}"
    for name in ("2Hz_smoothing500ms", "7.5Hz_smoothing200ms", "30Hz_smoothing50ms")
}
"""Published package → the shipped one that is used where the published one cannot be had."""

AUTO = "auto"
MODELS_DIR = Path("artifacts/cascade_models")
LARGEST_ZIP = 200 << 20
LARGEST_PACKAGE = 600 << 20
_LARGEST_CATALOGUE = 4 << 20
_TIMEOUT_S = (5, 30)
_MOST_MEMBERS = 4096
_RATE = re.compile(r"_(\d+(?:\.\d+)?)Hz(?:_|$)")
_SUFFIXES = {".h5", ".yaml", ".yml", ".txt", ".md", ".json"}


def find_package(
    model: str | Path, models_dir: Path, *, models_url: str | None = None, catalogue_url: str = CATALOGUE_URL
) -> Path:
    """Folder of a package, unpacked or downloaded into ``models_dir`` if it is not there.

    Parameters
    ----------
    model
        Folder or .zip of a package, ``embedded``, or a name: of a package in ``models_dir``, of a shipped one, or of
        one in CASCADE's catalogue.
    models_dir
        Folder of packages.
    models_url
        Address of a folder that holds ``<model>.zip``; it is asked instead of the catalogue.

    Raises
    ------
    BadInput
        If no package of that name can be had; the message has the nearest names and where to put it by hand.
    """
    place, models_dir = Path(model), Path(models_dir)
    if place.suffix.lower() == ".zip":
        return _install_zip(place, models_dir)
    if found := package_at_hand(model, models_dir):
        return found
    name = EMBEDDED_NAME if model == EMBEDDED else str(model)
    if not name or PurePosixPath(name).name != name or name.startswith(".") or "\\" in name:
        raise BadInput(repr(name), "is no name of a CASCADE model", "give one such as Global_EXC_2Hz_smoothing500ms")
    at_hand = [EMBEDDED, AUTO, *SUBSTITUTES, *(p.name for p in local_packages(models_dir))]
    near = difflib.get_close_matches(name, dict.fromkeys(at_hand), n=3, cutoff=0.7)
    if near and models_url is None and not _RATE.search(name):  # names in the catalogue state a rate
        hint = f"did you mean cascade_model={near[0]}?"
        raise BadInput(f"cascade_model={name}", f"is no CASCADE model; the nearest names are {', '.join(near)}", hint)
    try:
        return _fetch(name, models_dir / name, models_url, catalogue_url)
    except BadInput:
        substitute = SHIPPED_DIR / SUBSTITUTES.get(name, "")
        if name in SUBSTITUTES and not _occupied(models_dir / name) and (substitute / CONFIG_FILE).is_file():
            return substitute
        raise


def package_at_hand(model: str | Path, models_dir: Path) -> Path | None:
    """The folder that :func:`find_package` takes without fetching anything; ``None`` if there is none."""
    name = EMBEDDED_NAME if model == EMBEDDED else model
    places = (Path(model), Path(models_dir) / name, SHIPPED_DIR / name) if str(model) else ()
    return next((place for place in places if (place / CONFIG_FILE).is_file()), None)


def package_for_rate(fs_hz: float, models_dir: Path) -> Path:
    """The package at hand, local or shipped, whose frame rate is nearest to ``fs_hz`` (by ratio).

    Of two equally near ones it is the slower, because resampling upwards adds no signal.

    Raises
    ------
    BadInput
        If there is none.
    """
    found: dict[str, tuple[float, float, Path]] = {}
    for folder in reversed(local_packages(models_dir)):  # of two with one name, the local one counts
        with suppress(BadInput):
            rate = read_config(folder / CONFIG_FILE).sampling_rate_hz
            found[folder.name] = max(rate / fs_hz, fs_hz / rate), rate, folder
    found.pop(EMBEDDED_NAME, None)
    if not found:
        hint = "name one with cascade_model=…, or give engine=oasis cascade_model=tau1.25s"
        raise BadInput(models_dir, "holds no CASCADE package", hint)
    return min(found.values())[-1]


def local_packages(models_dir: Path) -> list[Path]:
    """Package folders in ``models_dir``, then the shipped ones, in name order."""
    return [p.parent for place in (Path(models_dir), SHIPPED_DIR) for p in sorted(place.glob(f"*/{CONFIG_FILE}"))]


def names_for_rate(models_dir: Path, fs_hz: float, tolerance: float) -> list[str]:
    """Models at hand whose name states a frame rate within ``tolerance`` (relative) of ``fs_hz``."""
    names = (folder.name for folder in local_packages(models_dir))
    rates = {name: float(match[1]) for name in names if (match := _RATE.search(name))}
    return [name for name, rate in rates.items() if abs(fs_hz - rate) <= tolerance * rate * (1 + 1e-9)]


def _occupied(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir()) if folder.is_dir() else folder.exists()


def _fetch(name: str, folder: Path, models_url: str | None, catalogue_url: str) -> Path:
    with folder_lock(folder):
        if (folder / CONFIG_FILE).is_file():
            return folder
        if _occupied(folder):
            held = ", ".join(sorted(p.name for p in folder.iterdir())[:3]) if folder.is_dir() else "a file"
            problem = f"holds {held} but no {CONFIG_FILE}, and is not overwritten"
            raise BadInput(folder, problem, f"put the {CONFIG_FILE} of the model there, or move the folder away")
        link = f"{models_url.rstrip('/')}/{name}.zip" if models_url else _link(name, folder, catalogue_url)
        _install(_get(link, folder, LARGEST_ZIP), folder, {"url": link})
    return folder


def _link(name: str, folder: Path, catalogue_url: str) -> str:
    """The address of a package in CASCADE's catalogue."""
    entries, problem = {}, _by_hand(folder, f"CASCADE's catalogue has no model {name}")
    try:
        found = plain_yaml(_get(catalogue_url, folder, _LARGEST_CATALOGUE), _LARGEST_CATALOGUE)
        entries = {str(listed): entry for listed, entry in found.items()}
        return str(entries[name]["Link"])
    except BadInput as error:
        problem = error
    except (AttributeError, ValueError, RecursionError, yaml.YAMLError):
        problem = _by_hand(folder, f"CASCADE's catalogue at {catalogue_url} cannot be read")
    except (KeyError, TypeError):
        pass  # it has no such model, or no address of it
    known = {*entries, *(p.name for p in local_packages(folder.parent))}
    if near := difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.7):
        problem = BadInput(problem.source, f"{problem.problem}; the nearest names are {', '.join(near)}", problem.hint)
    raise problem


def _get(url: str, folder: Path, largest: int) -> bytes:
    """What is at an address, whole and at most ``largest`` bytes."""
    import requests

    received = bytearray()
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            announced = int(answer.headers.get("Content-Length", -1))
            for chunk in () if announced > largest else answer.iter_content(1 << 20):
                received += chunk
                if len(received) > largest:
                    break
            whole = "Content-Encoding" in answer.headers or announced in (-1, len(received))
    except (requests.RequestException, ValueError) as error:
        raise _by_hand(folder, f"it could not be downloaded from {url} ({type(error).__name__})") from error
    if max(announced, len(received)) > largest:
        raise _by_hand(folder, f"{url} sends more than {largest} bytes, which no CASCADE package has")
    if not whole:
        raise _by_hand(folder, f"{url} broke off after {len(received)} of {announced} bytes")
    return bytes(received)


def _by_hand(folder: Path, reason: str) -> BadInput:
    return BadInput(
        folder,
        f"the CASCADE model is not there and {reason}",
        f"put {CONFIG_FILE} and the Model_NoiseLevel_*.h5 of the model into this folder, or give "
        f"cascade_model=<package.zip>, cascade_model={EMBEDDED} (trained on simulated cells) or "
        "engine=oasis cascade_model=tau1.25s (decay time)",
    )


def _install_zip(archive: Path, models_dir: Path) -> Path:
    if not archive.is_file():
        raise BadInput(archive, "does not exist", "check the path of the .zip")
    folder = Path(models_dir) / plain_name(archive.stem)
    content = archive.read_bytes()
    with folder_lock(folder):
        if not _occupied(folder):
            _install(content, folder, {"file": archive.name})
        elif read_record(folder / DOWNLOAD_RECORD).get("zip_sha256") != sha256(content).hexdigest():
            raise BadInput(folder, f"exists and does not come from {archive.name}", "rename the .zip or the folder")
    return folder


def _install(archive: bytes, folder: Path, origin: dict[str, str]) -> None:
    """Unpack, read every network, and only then give the folder its name."""
    with replacement(folder, "models_dir") as part:
        _unpack(archive, part, folder)
        try:
            open_package(part).check_members()
        except BadInput as error:
            raise _by_hand(folder, f"the zip file is no whole package ({error.problem})") from error
        record = origin | {
            "zip_bytes": len(archive),
            "zip_sha256": sha256(archive).hexdigest(),
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (part / DOWNLOAD_RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _unpack(archive: bytes, target: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(BytesIO(archive)) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            for member in members:
                _check_member(member, folder)
            if sum(member.file_size for member in members) > LARGEST_PACKAGE or len(members) > _MOST_MEMBERS:
                raise _by_hand(folder, f"the zip file unpacks to more than {LARGEST_PACKAGE} bytes")
            roots = {PurePosixPath(m.filename).parent for m in members if PurePosixPath(m.filename).name == CONFIG_FILE}
            if len(roots) != 1:
                raise _by_hand(folder, f"the zip file holds {len(roots)} times {CONFIG_FILE}, not once")
            root = roots.pop()
            for member in members:
                path = PurePosixPath(member.filename)
                if path.parent == root and not path.name.startswith("."):
                    (target / path.name).write_bytes(file.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _by_hand(folder, f"the zip file is damaged ({error})") from error


def _check_member(member: zipfile.ZipInfo, folder: Path) -> None:
    path = PurePosixPath(member.filename)
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename or link:
        raise _by_hand(folder, f"the zip file would write outside its folder ({member.filename})")
    if path.suffix.lower() not in _SUFFIXES and not path.name.startswith("."):
        raise _by_hand(folder, f"the zip file holds {member.filename}, which belongs to no CASCADE model")
