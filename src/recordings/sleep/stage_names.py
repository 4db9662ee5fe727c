"""Stage names and stage integers: one table for every scoring format."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput

_N1, _N2, _N3, _REM = 1, 2, 3, 4
_NOBODY = (
    *("?", "movement", "movementtime", "mt", "m", "unscored", "uns", "unknown", "undefined", "u", "indeterminate"),
    *("no", "nodata", "notscored", "art", "artefact", "artifact", "arte", "none", "l", "artefakt", "bewegung"),
    *("ns", "unknownstage", "nostage"),
)
ASIAN_NAMES: dict[str, dict[str, int]] = {
    "cp932": {"覚醒": 0, "レム": _REM},
    "gb18030": {"清醒": 0, "觉醒": 0, "快速眼动": _REM},
}
"""Names in Japanese and Chinese, by the encoding that a file with them has where it has no Unicode."""
_ASIAN_STAGE = re.compile("睡眠|段階|阶段|ステージ|第|期")
_HUMAN_NAMES: dict[str, int] = (
    # s0: RemLogic and CAP; wk: Alice; wach: Domino in German; eveil, veille, sp (sommeil paradoxal): French.
    dict.fromkeys(("w", "wake", "awake", "wk", "wakefulness", "wakestate", "0w", "s0", "aw", "awa"), 0)
    | dict.fromkeys(("wach", "wachzustand", "eveil", "veille", "vigilia", "veglia", "wakker", "waak"), 0)
    | dict.fromkeys(("despierto", "czuwanie", "vaken", "vagen", "valve"), 0)
    | dict.fromkeys(("1", "n1", "s1", "nrem1", "nonrem1"), _N1)
    | dict.fromkeys(("2", "n2", "s2", "nrem2", "nonrem2"), _N2)
    # Rechtschaffen & Kales' stages 3 and 4 are the AASM's N3.
    | dict.fromkeys(("3", "n3", "s3", "nrem3", "nonrem3", "4", "n4", "s4", "nrem4", "nonrem4", "34"), _N3)
    | dict.fromkeys(("sws", "slowwave", "tiefschlaf", "lentprofond"), _N3)
    | dict.fromkeys(("r", "rem", "re", "rapideyemovement", "sp", "paradoxal", "mor"), _REM)
    | dict.fromkeys(_NOBODY, UNSCORED)
    | {name: code for names in ASIAN_NAMES.values() for name, code in names.items()}
)
_RODENT_NAMES: dict[str, int] = (
    dict.fromkeys(("w", "wake", "awake", "wk", "wakefulness"), 0)
    | dict.fromkeys(("n", "nr", "nrem", "nonrem", "sws", "slowwave", "s"), 1)
    | dict.fromkeys(("r", "rem", "ps", "paradoxical"), 2)
    | dict.fromkeys(_NOBODY, UNSCORED)
)
_NAMES = {HUMAN_STAGES: _HUMAN_NAMES, RODENT_STAGES: _RODENT_NAMES}

CODINGS: dict[str, dict[int, int]] = {
    "aasm": {0: 0, 1: _N1, 2: _N2, 3: _N3, 4: _REM, -1: UNSCORED, -2: UNSCORED},
    "edf": {0: 0, 1: _N1, 2: _N2, 3: _N3, 4: _N3, 5: _REM, 6: UNSCORED, 9: UNSCORED},
    "dreams": {5: 0, 4: _REM, 3: _N1, 2: _N2, 1: _N3, 0: _N3, -1: UNSCORED, -2: UNSCORED, -3: UNSCORED},
    "ucddb": {0: 0, 1: _REM, 2: _N1, 3: _N2, 4: _N3, 5: _N3, 6: UNSCORED, 7: UNSCORED, 8: UNSCORED},
    "rodent": {1: 0, 2: 1, 3: 2, 0: UNSCORED, -1: UNSCORED},
    "accusleep": {1: 2, 2: 0, 3: 1, 4: UNSCORED, 0: UNSCORED, -1: UNSCORED},
}
"""Integer codings by name: AASM as YASA writes it, R&K as the EDF FAQ numbers it, two databases', two for rodents."""
RODENT_CODINGS = ("rodent", "accusleep")

LARGEST_STAGE = 5
"""Integers from 0 to this one stand for stages in every coding that has them; others stand for no stage."""
_INTEGER = re.compile(r"([+-]?\d+)(?:[.,]0*(?:e[+-]?0+)?)?")
_STAGE_WORDS = r"sleep|schlaf|sommeil|slaap|stage|stadium|stade|estadio|stadio|estagio|fase|stg?(?=\d|$)"
_KIND_OF_SLEEP = r"light|deep|quiet|active|drows\w*|leicht\w*|tief\w*|lent|leger|profond"
_SAYS_STAGE = re.compile(
    rf"(?:(?:{_STAGE_WORDS})[\s_:-]*)?sta(?:ge|dium|de)(?![a-z])|sleep-[a-z0-9]{{1,3}}$", re.IGNORECASE
)
_IN_BRACKETS = re.compile(r"(.+?)\s*[(\[](.+)[)\]]")


def integer_of(name: str) -> int | None:
    """The number of a name that is an integer (``2``, ``2.0``), else ``None``."""
    match = _INTEGER.fullmatch(name.strip())
    return int(match[1]) if match else None


def says_stage(name: str) -> bool:
    """Whether a name calls itself a stage, such as ``Sleep stage 7``."""
    return _SAYS_STAGE.match(name.strip()) is not None


def is_stage_word(name: str) -> bool:
    """Whether a name has words for stages only, and names none: ``Sleep stage``, ``Light sleep``."""
    words = re.split(r"[\s_-]+", name.strip().lower())
    return all(re.fullmatch(f"{_STAGE_WORDS}|{_KIND_OF_SLEEP}", word) for word in words)


def stage_code(
    name: str, stage_names: tuple[str, ...] = HUMAN_STAGES, more: Mapping[str, str] | None = None
) -> int | None:
    """The label of a stage name in any usual spelling, ``UNSCORED`` for movement and the like, ``None`` if unknown.

    Parameters
    ----------
    name
        ``N2``, ``Sleep stage 2``, ``SLEEP-S2``, ``Stage - N2``, ``Stage 2 sleep|2``, ``NREM 2``, ``Stage N3 (SWS)``…
    stage_names
        ``HUMAN_STAGES`` or ``RODENT_STAGES``.
    more
        Further names and the stage of ``stage_names`` (or ``?``) that each stands for; they go first.
    """
    for own, stage in (more or {}).items():
        if own.strip().casefold() == name.strip().casefold():
            if stage != "?" and stage not in stage_names:
                hint = f"choose one of {', '.join(stage_names)} or ?"
                raise BadInput(f"source.stage_names.{own}", f"{stage!r} is no stage", hint)
            return UNSCORED if stage == "?" else stage_names.index(stage)
    # Profusion and NSRR write "Stage 2 sleep|2", HMC "Sleep stage N2@@EEG".
    plain = re.split(r"\||@@", name.strip().lower())[0].strip()
    if plain in ("", "?", "n/a", "-"):
        return UNSCORED
    if bracketed := _IN_BRACKETS.fullmatch(plain):
        code, other = (stage_code(part, stage_names) for part in bracketed.groups())
        if code is None and is_stage_word(bracketed[1]):
            return other  # "Light sleep (N2)"
        return code if other in (None, code) else None  # "N3 (SWS)"; what contradicts itself is no name
    plain = unicodedata.normalize("NFC", re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFD", plain)))
    words = [word for word in re.split(r"[\s_:=/.\u2010-\u2015-]+", _ASIAN_STAGE.sub("", plain)) if word]
    rest = [word for word in words if not re.fullmatch(_STAGE_WORDS, word)]
    # "Light sleep N2" and "Sommeil lent profond N3"; "Sommeil lent profond" alone is a name too.
    short = "".join([word for word in rest if not re.fullmatch(_KIND_OF_SLEEP, word)] or rest)
    # NSRR's older files: SDO:WakeState, SDO:NonRapidEyeMovementSleep-N2, SDO:RapidEyeMovementSleep.
    short = re.sub(r"^sdo(?:nonrapideyemovementsleep)?|(?<=movement)sleep$", "", short)
    short = re.sub(rf"^(?:{_STAGE_WORDS}){{1,2}}(?=.)|^(?:nrem|nonrem)(?=n\d)", "", short)
    return _NAMES[stage_names].get(short) if short else None


@dataclass(frozen=True)
class ScoringOptions:
    """How to read a scoring that does not say everything; see :func:`.scoring_files.read_hypnogram`."""

    epoch_s: float | None = None  # length of a line's epoch
    coding: str | None = None  # what integers mean, a key of CODINGS
    stage_names: tuple[str, ...] = HUMAN_STAGES  # or RODENT_STAGES
    more_names: Mapping[str, str] = field(default_factory=dict)  # names of the user's own, and their stages
    scorer: str | None = None  # whose stages to read where a file has those of several

    def stage(self, name: str) -> int | None:
        """The label of a name; see :func:`stage_code`."""
        return stage_code(name, self.stage_names, self.more_names)
