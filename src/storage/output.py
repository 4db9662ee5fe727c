"""The one door for output: everything the project writes into a folder of the user's choice goes through here.

``OutputFolder(root, inputs)`` stands for what was given as ``output_dir``. It writes a folder of results
(:meth:`OutputFolder.folder`) or adds files to the root itself (:meth:`OutputFolder.files`). Both yield an empty hidden
folder and move what was written there into place at the end. A ``manifest.json`` beside the results lists them. That
is how a later run knows what it may replace: only files that a manifest lists and whose content is still what it
states. All other files stay as they are.
"""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from src.signals import BadInput
from src.storage.atomic import PART, disk_error, folder_lock, sync, unfinished
from src.storage.manifest import (
    MANIFEST,
    UNREADABLE,
    Record,
    checksums,
    is_ours,
    is_source,
    listed_files,
    read_manifest,
    read_record,
    write_manifest,
)
from src.storage.progress import say

LONGEST_NAME = 180
"""Bytes of a result's name; file systems allow 255 and hidden names and suffixes come on top."""
_LOCK = re.compile(r"\..+\.lock")
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".jobs")
"""What file managers, and Hydra's multiruns (``conf/preprocess.yaml``), put into folders that are otherwise empty."""


@dataclass(frozen=True)
class OutputFolder:
    """Where a verb writes.

    Attributes
    ----------
    root
        The folder that the user gave.
    inputs
        Files and folders that the verb reads; None for one that was not given. No result may be one of them, contain
        one or lie in one.
    option
        The option that names the root, for messages.

    Raises
    ------
    BadInput
        If the root is an input or lies in one, or is or lies below a file.
    """

    root: Path
    inputs: tuple[str | Path | None, ...] = ()
    option: str = "output_dir"

    def __post_init__(self) -> None:
        refuse_overlap(self.root, self.inputs, self.option, may_contain=True)
        root = Path(self.root).absolute()
        there = next(place for place in (root, *root.parents) if place.exists())
        if not there.is_dir():
            raise BadInput(there, "is a file where a folder is to be written", f"choose another {self.option}")

    def path(self, name: str) -> Path:
        """Where the result called ``name`` goes; nothing is written.

        Raises
        ------
        BadInput
            For a name that is not one plain path component, or a place that is, contains or lies in an input.
        """
        target = Path(self.root) / plain_name(name)
        refuse_overlap(target, self.inputs, self.option)
        return target

    def names(self, sources: Iterable[tuple[str, str | Path]]) -> list[str]:
        """:func:`distinct_names`, which also differ from results in the root that were made from another file.

        That is why ``n.EDF`` gets ``n-3f2a9c`` where an earlier run has made ``n`` from ``n.edf``, and so does an
        ``n.edf`` of another folder and other content. A file that was moved or corrected keeps its place.
        """
        pairs, names = list(sources), []
        for name, (_, source) in zip(distinct_names(pairs), pairs, strict=True):
            try:
                made_from = _made_from(self.path(name))
            except BadInput:  # whoever writes the result says why it cannot be
                made_from = []
            same_name, other = [record for record in made_from if record["name"] == Path(source).name], ""
            if made_from and not same_name:
                other = Path(source).name
            elif same_name and not any(is_source(record, Path(source)) for record in same_name):
                other = os.path.realpath(source)
            names.append(_apart(name, other) if other else name)
            if other:
                where = f"{self.path(name)} was made from another file; this result goes to {names[-1]}"
                say(Console(stderr=True), f"{source}: {where}")
        return names

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Yield an empty folder that becomes ``root/<name>`` when the block ends without an error.

        Files of an earlier result there are replaced, also those that the new result lacks. What the block writes
        as ``manifest.json`` is kept, with the list of files added to it.

        Raises
        ------
        BadInput
            See :meth:`path`; also for a folder that holds files and no manifest, a place that cannot be written, or a
            full disk.
        """
        target = self.path(name)
        with folder_lock(target), replacement(target, self.option) as part:
            yield part

    def check(self, *names: str, known: tuple[str, ...] = ()) -> None:
        """Raise what :meth:`folder` would raise for ``names``, or without them :meth:`files`, before work is done."""
        for name in names:
            refuse_foreign(self.path(name), self.option)
        if not names:
            refuse_foreign(Path(self.root), self.option, beside_results=True, known=known)

    @contextmanager
    def files(self, *, known: tuple[str, ...] = ()) -> Iterator[Path]:
        """Yield an empty folder whose files are added to the root when the block ends without an error.

        Parameters
        ----------
        known
            Names in the root that are no reason to refuse it: they are proven ours in another way, for example by
            a published checksum.

        Raises
        ------
        BadInput
            If the root is or lies in an input, or holds files and neither a manifest nor results of ours; if a file
            of the same name there is not ours.
        """
        root = Path(os.path.realpath(self.root))
        self.check(known=known)
        with folder_lock(root / MANIFEST), unfinished(root / MANIFEST, folder=True) as part:
            yield part
            for name in checksums(part):
                refuse_overlap(root / name, self.inputs, self.option)
            _move(part, root, self.option, adding=True)


def plain_name(name: str) -> str:
    """``name`` if it is one plain path component, shortened with a hash where it is too long.

    Raises
    ------
    BadInput
        For a name that is empty, ``.`` or ``..``, or that has a separator, a leading dot or a control character.
    """
    if not name or name.startswith(".") or {"/", "\\", "\0"} & set(name) or any(ord(c) < 32 for c in name):
        problem = "cannot be the name of a result (empty, a leading dot, a separator or a control character)"
        raise BadInput(repr(name), problem, "choose another name")
    raw = os.fsencode(name)
    if len(raw) <= LONGEST_NAME:
        return name
    kept = raw[: LONGEST_NAME - 9].decode(sys.getfilesystemencoding(), "ignore")
    return f"{kept}-{hashlib.sha256(raw).hexdigest()[:8]}"


def distinct_names(sources: Iterable[tuple[str, str | Path]]) -> list[str]:
    """One name for each ``(name, source)``, different also where a file system ignores case.

    Names that are the same or differ only in case get a hash of their source's file name, for example ``n-3f2a9c``
    for ``n.EDF`` beside ``n.edf``, and one of its path where that is not enough.
    """
    pairs = [(name, str(source)) for name, source in sources]
    count = Counter(name.casefold() for name, _ in pairs)
    names = [_apart(n, Path(source).name) if count[n.casefold()] > 1 else n for n, source in pairs]
    if len(set(names)) < len(names):
        names = [
            name if names.count(name) == 1 else _apart(name, source)
            for name, (_, source) in zip(names, pairs, strict=True)
        ]
    return names


def _apart(name: str, other: str) -> str:
    return f"{name}-{hashlib.sha256(os.fsencode(other)).hexdigest()[:6]}"


def _made_from(result: Path) -> list[dict[str, Any]]:
    """The files that a result was made from, by its folder's manifest or by its record ``<result>.json``."""
    recording = read_record(result.with_name(f"{result.name}.json")).get("recording")
    inputs = (read_manifest(result) or {}).get("inputs")
    found = [recording, *(inputs.values() if isinstance(inputs, dict) else ())]
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("name"), str)]


def refuse_overlap(
    target: Path, inputs: Iterable[str | Path | None], option: str, *, may_contain: bool = False
) -> None:
    """Raise unless ``target`` and every input are apart from each other.

    Raises
    ------
    BadInput
        If the target is an input, contains one (unless ``may_contain``), or lies in one.
    """
    target = Path(os.path.realpath(target))
    for given in (path for path in inputs if path):
        source = Path(os.path.realpath(Path(given)))
        if _same(target, source):
            relation = "is"
        elif not may_contain and any(_same(target, above) for above in source.parents):
            relation = "contains"
        elif source.is_dir() and any(_same(above, source) for above in target.parents):
            relation = "lies in"
        else:
            continue
        raise BadInput(target, f"{relation} the input {given}, which is never written to", f"choose another {option}")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths without links are one place, also where the file system ignores case."""
    if one == other:
        return True
    if str(one).casefold() != str(other).casefold():
        return False
    with suppress(OSError):
        return one.samefile(other)
    return False


def refuse_other_source(target: Path, inputs: Mapping[str, Path]) -> None:
    """Raise for a result that was made from files of the same names in another folder, which are other recordings.

    Results that do not say where their inputs were are replaced, and so are those of other results of ours: these
    are made anew in other places when a setting changes.

    Raises
    ------
    BadInput
        Naming the file.
    """
    recorded = (read_manifest(target) or {}).get("inputs")
    for name, path in inputs.items():
        record = recorded.get(name) if isinstance(recorded, dict) else None
        if not isinstance(record, dict) or record.get("name") != Path(path).name or "place" not in record:
            continue
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        if read_manifest(folder) is None and not is_source(record, Path(path)):
            problem = f"holds what was made from another {Path(path).name} than {path}"
            raise BadInput(target, problem, "choose another output_dir, or remove the result")


def refuse_foreign(folder: Path, option: str, *, beside_results: bool = False, known: tuple[str, ...] = ()) -> None:
    """Raise ``BadInput`` for a folder without a manifest of ours, naming a file in it.

    With ``beside_results`` folders of results in it are no reason to refuse. ``known``: see :meth:`OutputFolder.files`.
    """
    hint = f"choose another {option}, or move what it holds"
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadInput(folder, "is a file where a folder is to be written", f"choose another {option}")
    manifest = read_manifest(folder)
    if manifest is UNREADABLE:
        problem = f"holds a {MANIFEST} that is damaged or not ours, so nobody can tell what in it may be replaced"
        raise BadInput(folder, problem, hint)
    for path in sorted(folder.iterdir()) if manifest is None else ():
        hidden = PART.fullmatch(path.name) or _LOCK.fullmatch(path.name)
        results = beside_results and _holds_results(path)
        if not (hidden or results or path.name in (*LITTER, *known)):
            raise BadInput(folder, f"already holds {path.name!r}, which neurolit did not write", hint)


def _holds_results(path: Path) -> bool:
    """Whether a folder is a result of ours, or holds nothing but such folders."""
    if not path.is_dir() or path.is_symlink():
        return False
    inside = [child for child in path.iterdir() if child.name not in LITTER and not _LOCK.fullmatch(child.name)]
    return bool(read_manifest(path)) or (bool(inside) and all(_holds_results(child) for child in inside))


@contextmanager
def replacement(target: Path, option: str = "output_dir", *, cached: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target``, whose lock the caller holds.

    Parameters
    ----------
    cached
        Whether the folder is one of the cache: files in the way are then kept under another name, never refused.

    Raises
    ------
    BadInput
        See :meth:`OutputFolder.folder`.
    """
    target = Path(os.path.realpath(target))
    if not cached:
        refuse_foreign(target, option)
    with unfinished(target, folder=True) as part:
        yield part
        if target.is_dir():
            _move(part, target, option, adding=False, cached=cached)
            return
        write_manifest(part, read_record(part / MANIFEST) | {"outputs": checksums(part)})
        sync(part)
        os.rename(part, target)


def _move(part: Path, target: Path, option: str, *, adding: bool, cached: bool = False) -> None:
    """Move the files of ``part`` into ``target`` and remove what the earlier result has besides, unless ``adding``.

    The manifest lists both results until all is done, so the same command finishes what a kill interrupts.
    """
    old, new = listed_files(target) or {}, checksums(part)
    if cached and not old:
        _put_aside(target / MANIFEST)
    for name in new:
        _make_way(target, name, old.get(name), option, cached)
    stale = [] if adding else [name for name in old if name not in new and is_ours(target, name, old[name])]
    # Of a file of an earlier result the record that it has now; there are several after an interrupted run.
    kept = {
        name: next((record for record in records[:-1] if is_ours(target, name, [record])), records[-1])
        for name, records in old.items()
        if adding and name not in new
    }
    final = read_record(part / MANIFEST) | {"outputs": kept | new}
    write_manifest(part, {"unfinished": True, "outputs": new, "replaced": old})
    sync(part)
    try:
        os.replace(part / MANIFEST, target / MANIFEST)
        for name in stale:
            (target / name).unlink()
            _remove_empty(target / name, target)
        for name in new:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / name, target / name)
        write_manifest(part, final)
        sync(part)
        os.replace(part / MANIFEST, target / MANIFEST)
    except OSError as error:
        raise disk_error(error, target) or error from error


def _make_way(target: Path, name: str, records: list[Record] | None, option: str, cached: bool) -> None:
    """Make sure that ``target/name`` may be written: it is free, it is ours, or it is put aside."""
    for above in reversed((target / name).parents):
        inside = above != target and above.is_relative_to(target)
        if inside and os.path.lexists(above) and (above.is_symlink() or not above.is_dir()):
            raise BadInput(above, "is a file or a link where a folder is to be written", f"choose another {option}")
    path = target / name
    if not os.path.lexists(path) or (records and is_ours(target, name, records)):
        return
    if not cached and (records is None or not path.is_file()):
        hint = f"choose another {option}, or rename it"
        raise BadInput(path, "is there already and was not written by neurolit", hint)
    _put_aside(path)


def _put_aside(path: Path) -> None:
    """Give a file that cannot be proven ours another name, one that no reader takes for a result."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.kept-{number}")):
        number += 1
    if os.path.lexists(path):
        os.rename(path, aside)
        say(Console(stderr=True), f"{path}: is not as neurolit wrote it; it is kept as {aside.name}")


def _remove_empty(path: Path, top: Path) -> None:
    for folder in path.parents:
        if folder == top:
            return
        with suppress(OSError):
            folder.rmdir()
