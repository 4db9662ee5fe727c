"""``--help`` of the three verbs, written from the parameters' dataclasses and the folders of ``conf/``."""

import inspect
import json
import re
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from src import schema

CONF = Path(__file__).resolve().parents[2] / "conf"
_KEY = re.compile(r"^    (?P<name>\w+)\s*:[^#]*?(?:#\s*(?P<comment>.*))?$")
_WIDTH = 110

TRAIN = """\
Train the model of one experiment. The same command continues a run that was interrupted.

    python train.py experiment=sleep_cnn
    python train.py experiment=sleep_cnn trainer.max_epochs=10 seed=7
    python train.py -m experiment=sleep_cnn seed=1,2,3        (a sweep; see docs/sweeps.md)
"""
PREPROCESS = """\
Turn raw recordings into files, one step at a time. The same command continues after an interruption.

    python preprocess.py preprocess=spectrogram input_dir=recordings output_dir=spectrograms
    python preprocess.py preprocess=spectrogram --help                      (the keys of one step)
    python preprocess.py -m preprocess=spectrogram input_dir=… output_dir=… part=1,2 parts=2
"""
INFER = """\
Predict with a trained bundle.

    python infer.py input=night.edf                  (a night of human sleep, with the network that ships)
    python infer.py bundle=runs/sleep_cnn/latest input=night.edf
    python infer.py bundle=runs/sleep_cnn/latest input=nights output_dir=scored
    python infer.py input=night.edf list=true        (channels, units, rates, and the bundles that fit)
"""


def help_text(verb: str, arguments: list[str]) -> str:
    """What ``python <verb>.py --help`` prints; for ``preprocess=<step>`` the keys of that step."""
    if verb == "train":
        rows = [(group, ", ".join(options(group))) for group in groups()]
        parts = [TRAIN, "Groups (group=option):", _table(rows)]
        parts += ["\nKeys (key=value):", _table(key_rows(schema.TrainConfig, hide=set(groups())))]
        parts += ["\nAll keys of an experiment with their values: python train.py experiment=<experiment> --cfg job"]
        return "\n".join(parts)
    if verb == "infer":
        return "\n".join([INFER, "Keys (key=value):", _table(key_rows(schema.InferConfig))])
    step = next((a.partition("=")[2] for a in arguments if a.startswith("preprocess=")), None)
    if step in schema.steps():
        head = (inspect.getdoc(schema.steps()[step]) or "").replace("``", "")
        command = f"\n    python preprocess.py preprocess={step} input_dir=… output_dir=…\n"
        return "\n".join([head, command, "Keys (key=value):", _table(key_rows(schema.steps()[step]))])
    from src.storage.parameters import PreprocessConfig

    # The second line of a step's file in conf/preprocess says what it does.
    files = {name: (CONF / "preprocess" / f"{name}.yaml").read_text().splitlines() for name in schema.steps()}
    steps = _table([(name, lines[1].strip("# ")) for name, lines in files.items()])
    parts = [PREPROCESS, "Steps (preprocess=step):", steps, "\nKeys of all steps:", _table(key_rows(PreprocessConfig))]
    return "\n".join(parts)


def options(group: str) -> list[str]:
    """The options of a group of ``conf/``."""
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def described(params: type) -> dict[str, tuple[Any, str]]:
    """``{key: (default, comment)}`` of a dataclass; the comment is the one behind the key in the source."""
    comments: dict[str, str] = {}
    for owner in reversed(params.__mro__[:-1]):
        above: list[str] = []
        for line in inspect.getsource(owner).splitlines():
            if match := _KEY.match(line):
                comments[match["name"]] = " ".join([*above, match["comment"] or ""]).strip() or comments.get(
                    match["name"], ""
                )
            above = [*above, line.strip("# ")] if line.startswith("    #") else []
    found = {}
    for field in fields(params):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        found[field.name] = (default, comments.get(field.name, ""))
    return found


def key_rows(params: type, hide: set[str] | None = None, prefix: str = "") -> list[tuple[str, str]]:
    """``key=default`` and its comment, for every key a user gives; keys of a group carry its name."""
    rows = []
    for name, (default, comment) in described(params).items():
        if name in (hide or ()) or name.startswith("_"):
            continue
        if is_dataclass(default):
            rows += key_rows(type(default), prefix=f"{prefix}{name}.")
            continue
        shown = "…" if default == "???" else default if isinstance(default, str) else json.dumps(default)
        rows.append((f"{prefix}{name}={shown}", comment))
    return rows


def groups() -> list[str]:
    """The groups of ``conf/`` that belong to training, the experiment first."""
    names = sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name not in ("preprocess", "hydra", "folds"))
    return ["experiment", *(name for name in names if name != "experiment")]


def _table(rows: list[tuple[str, str]]) -> str:
    """Two columns: names, and texts wrapped beside them; a long name has a line of its own."""
    width = min(34, max(len(name) for name, _ in rows))
    indent = " " * (width + 4)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent) or [""]
        if len(name) <= width:
            wrapped[0] = f"  {name:<{width}}  {wrapped[0].strip()}".rstrip()
        else:
            wrapped.insert(0, f"  {name}")
        lines += wrapped
    return "\n".join(lines)
