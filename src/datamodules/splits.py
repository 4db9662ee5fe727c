"""Which subjects are trained on, validated on and tested on: split by subject, or by block with a guard gap."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.signals import BadInput, require_range
from src.storage.manifest import digest_of

REPOSITORY = Path(__file__).resolve().parents[2]
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Which part every subject belongs to.

    Attributes
    ----------
    method
        How the parts were drawn.
    seed
        What they were drawn with.
    parts
        ``{subject id: "train" | "val" | "test"}``.
    """

    method: str
    seed: int
    parts: Mapping[str, Part]

    def subjects(self, part: Part) -> list[str]:
        """Sorted subject ids of one part."""
        return sorted(s for s, p in self.parts.items() if p == part)

    @property
    def digest(self) -> str:
        """SHA-256 of method, seed and assignment."""
        return digest_of({**asdict(self), "parts": dict(self.parts)})

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "seed": self.seed,
            "parts": dict(sorted(self.parts.items())),
            "sha256": self.digest,
        }


def split_by_fraction(subjects: Sequence[str], *, val: float, test: float, seed: int) -> Split:
    """Draw ``test`` and ``val`` fractions of the subjects, at least one of each.

    The draw depends on the set of ids and the seed, not on their order.

    Raises
    ------
    BadInput
        With fewer than three subjects or fractions that leave nobody to train on.
    """
    unique = sorted(set(subjects))
    n_test, n_val = max(1, round(test * len(unique))), max(1, round(val * len(unique)))
    if len(unique) < 3 or n_test + n_val >= len(unique):
        raise BadInput(
            "datamodule.split",
            f"{len(unique)} subject(s) cannot be split into train, {n_val} val and {n_test} test",
            "add subjects (at least 3) or lower the fractions",
        )
    order = [unique[i] for i in np.random.default_rng(seed).permutation(len(unique))]
    parts: dict[str, Part] = dict.fromkeys(order, "train")
    parts |= dict.fromkeys(order[:n_test], "test") | dict.fromkeys(order[n_test : n_test + n_val], "val")
    return Split(f"fraction(val={val}, test={test})", seed, parts)


def split_by_fold(subjects: Sequence[str], *, fold: int, folds: int, val: float, seed: int) -> Split:
    """Fold ``fold`` of a ``folds``-fold cross-validation over subjects.

    ``folds`` equal to the number of subjects is leave-one-subject-out. Validation subjects are drawn
    from the training subjects of the fold, at least one.

    Raises
    ------
    BadInput
        If there are fewer subjects than folds, or nobody is left to train on.
    """
    unique = sorted(set(subjects))
    if len(unique) < max(folds, 3):
        raise BadInput("datamodule.split", f"{len(unique)} subject(s) for {folds} folds", "add subjects or lower folds")
    order = [unique[i] for i in np.random.default_rng(seed).permutation(len(unique))]
    tested = order[fold::folds]
    rest = [s for s in order[fold:] + order[:fold] if s not in tested]
    n_val = max(1, round(val * len(rest)))
    if n_val >= len(rest):
        raise BadInput("datamodule.split", f"{len(rest)} subject(s) left to train and validate", "add subjects")
    parts: dict[str, Part] = dict.fromkeys(rest[n_val:], "train")
    parts |= dict.fromkeys(rest[:n_val], "val") | dict.fromkeys(tested, "test")
    return Split(f"fold({fold} of {folds}, val={val})", seed, parts)


def read_folds(path: str, fold: int) -> list[list[str]]:
    """The subjects of each fold; a path is looked for in the working directory, then in the repository.

    Raises
    ------
    BadInput
        If the file cannot be read, or has no such fold.
    """
    place = Path(path) if Path(path).exists() else REPOSITORY / path
    try:
        folds = [[str(subject) for subject in part] for part in json.loads(place.read_text())["folds"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(path, "is no file of folds", "give JSON with a list of subjects per fold") from error
    if not 0 <= fold < len(folds):
        raise BadInput(path, f"has {len(folds)} folds, not a fold {fold}", f"give a fold from 0 to {len(folds) - 1}")
    return folds


def split_by_file(subjects: Sequence[str], *, path: str, fold: int, val: int, seed: int) -> Split:
    """Fold ``fold`` of a file in the repository, so that everyone tests on the same people.

    Parameters
    ----------
    path
        JSON with ``folds``, a list of lists of subjects; each is the test set of its fold.
    val
        Validation subjects, drawn by ``seed`` from the rest.

    Raises
    ------
    BadInput
        If :func:`read_folds` says so, or the file names other subjects than the data have.
    """
    folds = read_folds(path, fold)
    listed, present = {subject for part in folds for subject in part}, set(subjects)
    if listed != present:
        odd = ", ".join(sorted(listed ^ present)[:8])
        raise BadInput(path, f"and the data disagree on subjects: {odd}", "use the folds that were made for these data")
    rest = sorted(present - set(folds[fold]))
    if not 0 < val < len(rest):
        raise BadInput("datamodule.split.val", f"{val} of {len(rest)} subjects", "leave some to train on")
    order = [rest[i] for i in np.random.default_rng((seed, fold)).permutation(len(rest))]
    parts: dict[str, Part] = dict.fromkeys(order[val:], "train")
    parts |= dict.fromkeys(order[:val], "val") | dict.fromkeys(folds[fold], "test")
    return Split(f"file({Path(path).name}, fold {fold} of {len(folds)}, val={val})", seed, parts)


def split_blocks(length: int, *, val: float, test: float, gap: int) -> dict[Part, range]:
    """Three consecutive blocks of one recording with ``gap`` samples left out at each border.

    ``gap`` must be at least the widest window that produced or reads the data.

    Raises
    ------
    BadInput
        If a block would be empty.
    """
    usable = length - 2 * gap
    n_val, n_test = int(usable * val), int(usable * test)
    n_train = usable - n_val - n_test
    if min(n_train, n_val, n_test) <= 0:
        raise BadInput(
            "split", f"{length} samples are too few for three blocks with gaps of {gap}", "use a longer recording"
        )
    first_val = n_train + gap
    first_test = first_val + n_val + gap
    return {"train": range(n_train), "val": range(first_val, first_val + n_val), "test": range(first_test, length)}


SPLITS: dict[str, Callable[..., Split]] = {
    "fraction": split_by_fraction,
    "fold": split_by_fold,
    "file": split_by_file,
}
TAKES = {
    "fraction": ("val", "test"),
    "fold": ("fold", "folds", "val"),
    "file": ("path", "fold", "val"),
    "blocks": ("val", "test", "gap_epochs"),
}
"""Parameters of each method; ``blocks`` is :func:`split_blocks`, for data of too few subjects."""


def check_split(method: str, seed: int = 0, **parameters: Any) -> dict[str, Any]:
    """The parameters of a method; those of the other methods are passed over.

    An experiment may state parameters for its own method, and another be chosen on the command line.

    Raises
    ------
    BadInput
        For an unknown method, a parameter that is missing or that no method has, or a value out of range.
    """
    where = "datamodule.split"
    if method not in TAKES:
        raise BadInput(f"{where}.method", f"unknown method {method!r}", f"choose one of {', '.join(TAKES)}")
    if odd := sorted(set(parameters) - {key for keys in TAKES.values() for key in keys}):
        hint = f"{method} takes {', '.join(TAKES[method])}"
        raise BadInput(f"{where}.{odd[0]}", "is no parameter of a split", hint)
    own = {key: parameters[key] for key in TAKES[method] if parameters.get(key) is not None}
    if missing := sorted(set(TAKES[method]) - set(own)):
        raise BadInput(f"{where}.{missing[0]}", f"is needed by {method}", f"give split.{missing[0]}")
    shares = {key: own[key] for key in ("val", "test") if key in own and method != "file"}
    require_range(where, 0, 1, **shares)
    if sum(shares.values()) >= 1:
        raise BadInput(where, f"{' and '.join(shares)} together are {sum(shares.values()):g}", "lower the shares")
    if method == "file":
        read_folds(own["path"], own["fold"])
    if method == "fold":
        require_range(where, 2, folds=own["folds"])
        require_range(where, 0, own["folds"] - 1, fold=own["fold"])
    return own


def make_split(subjects: Sequence[str], *, method: str, seed: int, **parameters: Any) -> Split:
    """Split ``subjects`` by one of :data:`SPLITS`; see :func:`check_split`."""
    own = check_split(method, **parameters)
    return SPLITS[method](subjects, seed=seed, **own)
