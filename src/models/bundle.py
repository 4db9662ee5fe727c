"""The bundle: a trained network as a folder that ``infer.py`` can use with nothing else.

``model.safetensors`` holds the weights and the fitted buffers. ``bundle.json`` holds everything else that a
prediction needs: the kind of network and its arguments, the input it expects, the preprocessing steps with their
versions, class names, decision parameters, scores, and the origin of the data it was trained on. The description
is checked as a whole when a bundle is made and when it is read, and it carries a checksum of itself. No pickle is
written or read.
"""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from src.signals import TRUST, BadInput, Origin, SignalSpec, is_trusted
from src.storage.foreign_files import absent
from src.storage.manifest import canonical_json, digest_of, fingerprint, provenance, source_record, write_manifest
from src.storage.output import OutputFolder

SCHEMA_VERSION = 2
Settings = TypeVar("Settings")
WEIGHTS, DESCRIPTION = "model.safetensors", "bundle.json"
_AGAIN = "export the bundle again or copy it anew"
_OTHER_VERSION = "train again, or use the neurolit that wrote it"

NETWORKS: dict[str, tuple[str, str]] = {
    "sleep_epoch_cnn": ("src.models.sleep.networks", "SleepEpochCNN"),
    "sleep_sequence": ("src.models.sleep.networks", "SequenceSettings"),
    "sleep_deep_cnn": ("src.models.sleep.original", "DeepCNN"),
    "sleep_linear": ("src.models.sleep.original", "LinearNet"),
    "sleep_simple_cnn": ("src.models.sleep.original", "SimpleCNN"),
    "spike_detector": ("src.models.spikes.networks", "SpikeDetector"),
    "spike_classifier": ("src.models.spikes.networks", "SpikeClassifier"),
    "grid_planes": ("src.models.grids.networks", "PlaneForecaster"),
}
"""Network kind → (module, class). A bundle names a kind and no Python path, so files outlive renamings.

A network of a package that the user trusts (:data:`~src.signals.TRUST`) is named by its path, ``mylab.nets.MyNet``.
"""


@dataclass(frozen=True)
class Bundle:
    """Everything of a bundle but its weights.

    Attributes
    ----------
    task
        What it is for.
    kind
        A key of :data:`NETWORKS`, or the path of a network of the user's own.
    network_args
        The arguments of that network.
    signal
        What the network reads.
    steps
        The preprocessing to repeat: ``{"step": name, "version": number, "params": {…}}``, at least one.
    classes
        Names of the network's outputs.
    decision
        What turns outputs into a result: a temperature, thresholds.
    metrics
        Scores (``test/…``).
    split
        Who was trained and tested on.
    provenance
        Versions of code and packages.
    origin
        What data it was trained on. Whoever quotes ``metrics`` quotes it.

    Raises
    ------
    BadInput
        If the description contradicts itself, see :data:`SCHEMA` and :data:`DECISIONS`.
    """

    task: str
    kind: str
    network_args: dict[str, Any]
    signal: SignalSpec
    steps: list[dict[str, Any]]
    classes: list[str]
    decision: dict[str, Any]
    metrics: dict[str, Any]
    split: dict[str, Any]
    origin: Origin
    provenance: dict[str, Any]
    schema_version: int = SCHEMA_VERSION
    weights_sha256: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        where = self.folder / DESCRIPTION if self.folder else "bundle"
        for name, (form, expected) in SCHEMA.items():
            if not _has_form(getattr(self, name), form):
                raise BadInput(where, f"field {name} is no {expected}", _AGAIN)
        outputs = self.network_args.get("n_classes", len(self.classes))
        if outputs != len(self.classes):
            raise BadInput(where, f"names {len(self.classes)} classes for {outputs} outputs", _AGAIN)
        for name, (form, expected) in DECISIONS.get(self.task, {}).items():
            if not _has_form(self.decision.get(name), form):
                raise BadInput(where, f"decision.{name} is no {expected}", _AGAIN)

    def network(self) -> nn.Module:
        """The network with its weights, in evaluation mode.

        Raises
        ------
        BadInput
            If the weights are missing, damaged, or do not fit the described network.
        """
        assert self.folder is not None
        path = self.folder / WEIGHTS
        if not path.is_file() or fingerprint(path) != self.weights_sha256:
            raise BadInput(path, "is missing or damaged (checksum differs)", _AGAIN)
        try:
            network = build_network(self.kind, self.network_args)
        except BadInput as error:
            raise BadInput(self.folder / DESCRIPTION, error.problem, error.hint) from None
        except Exception as error:  # whatever a constructor makes of arguments that are not its own
            problem = f"describes no {self.kind} ({' '.join(str(error).split())[:120]})"
            raise BadInput(self.folder / DESCRIPTION, problem, "use the version that wrote it") from error
        try:
            network.load_state_dict(load_file(path))
        except (RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(path, f"does not fit a {self.kind} ({reason})", "use the version that wrote it") from error
        return network.eval()

    def record(self) -> dict[str, Any]:
        """What the manifest of a prediction says of the bundle that made it."""
        return {"path": str(self.folder), "weights_sha256": self.weights_sha256, "origin": self.origin.to_dict()}

    def write_manifest(self, folder: Path, inputs: Mapping[str, Path], facts: Mapping[str, Any]) -> None:
        """Write the ``manifest.json`` of a prediction: with what it was made, from which files, and ``facts``."""
        record = {
            "task": self.task,
            "bundle": self.record(),
            "inputs": {name: source_record(path) for name, path in inputs.items()},
            **facts,
            "provenance": provenance(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_manifest(folder, record)

    def settings(self, read: Callable[[dict[str, Any]], Settings]) -> Settings:
        """The settings of the first preprocessing step; ``read`` makes them from its parameters."""
        try:
            return read(self.steps[0]["params"])
        except (KeyError, TypeError, AttributeError) as error:
            hint = "use the neurolit that wrote it, or train again"
            raise BadInput(
                self.folder or "bundle", f"does not say how {self.steps[0]['step']} is done ({error})", hint
            ) from error

    def require(self, task: str, versions: Mapping[str, int]) -> None:
        """Raise ``BadInput`` unless it is for ``task`` and its preprocessing has the ``versions`` installed here."""
        if self.task != task:
            raise BadInput(self.folder or "bundle", f"is a {self.task} bundle, not {task}", f"give a {task} bundle")
        for step in self.steps:
            name, version = step["step"], step["version"]
            if versions.get(name) != version:
                known = f"here it is {versions[name]}" if name in versions else "unknown here"
                problem = f"needs version {version} of the preprocessing {name}, {known}"
                raise BadInput(self.folder or "bundle", problem, _OTHER_VERSION)


def _has_form(value: Any, form: Any) -> bool:
    """Whether a plain value has a form.

    A form is a type (texts are not empty, numbers are finite), ``[form]`` for a list of at least one, ``{name: form}``
    for a record with at least these fields, or a function that tests the value.
    """
    if isinstance(form, list):
        return isinstance(value, list | tuple) and bool(value) and all(_has_form(v, form[0]) for v in value)
    if isinstance(form, dict):
        named = isinstance(value, dict) and all(isinstance(name, str) for name in value)
        return named and all(_has_form(value.get(name), part) for name, part in form.items())
    if form is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if form is str:
        return isinstance(value, str) and bool(value)
    return type(value) is form if isinstance(form, type) else bool(form(value))


_SIGNAL: dict[str, Any] = {
    "channels": [str],
    "axes": [str],
    "units": lambda value: isinstance(value, str),
    "window_s": lambda value: _has_form(value, float) and value > 0,
    "fs_hz": lambda value: _has_form(value, float) and value >= 0,
    "shape": lambda value: all(size is None or (type(size) is int and size > 0) for size in value),
    "freqs_hz": lambda value: all(_has_form(f, float) for f in value),
}
_ORIGIN: dict[str, Any] = {
    "recorded": bool,
    "cohorts": [str],
    "subjects": lambda value: type(value) is int and value > 0,
    "hours": lambda value: _has_form(value, float) and value >= 0,
    "licence": lambda value: isinstance(value, str),
    "citation": lambda value: isinstance(value, str),
}
Check = tuple[Any, str]
_TEXT: Check = (str, "text")
_RECORD: Check = ({}, "record of named values")
_STEPS = "list of at least one preprocessing step with its name, version and parameters"

SCHEMA: dict[str, Check] = {
    "task": _TEXT,
    "kind": _TEXT,
    "network_args": _RECORD,
    "signal": (lambda value: _has_form(vars(value), _SIGNAL), "description of the network's input"),
    "steps": ([{"step": str, "version": int, "params": {}}], _STEPS),
    "classes": ([str], "list of at least one name"),
    "decision": _RECORD,
    "metrics": (lambda value: _has_form(value, dict.fromkeys(value, float)), "record of numbers"),
    "split": _RECORD,
    "origin": (lambda value: _has_form(vars(value), _ORIGIN), "description of the data it was trained on"),
    "provenance": _RECORD,
    "schema_version": (int, "whole number"),
    "weights_sha256": (lambda value: isinstance(value, str), "checksum"),
}
"""The form of each field of a bundle, and its words."""

DECISIONS: dict[str, dict[str, Check]] = {
    "sleep_staging": {"temperature": (_SIGNAL["window_s"], "number above 0")},
    "spike_detection": {"targets": _RECORD},
    "spike_classification": {"targets": _RECORD},
    "grid_forecasting": {"threshold": ([float], "list of numbers"), "forecast": _TEXT, "baselines": _RECORD},
}
"""What the decision of each task has to hold."""


def build_network(kind: str, arguments: dict[str, Any]) -> nn.Module:
    """A network of one of the :data:`NETWORKS` with fresh weights."""
    made = network_class(kind)(**arguments)
    network: nn.Module = made if isinstance(made, nn.Module) else made.network()
    return network


def network_class(kind: str) -> type[Any]:
    """The class that takes the arguments of one of the :data:`NETWORKS`: a module, or settings that make one."""
    module, name = NETWORKS.get(kind) or (kind.rpartition(".")[0], kind.rpartition(".")[2])
    if kind not in NETWORKS and not is_trusted(kind):
        package, hint = kind.partition(".")[0], f"known kinds: {', '.join(NETWORKS)}"
        if module:
            hint = f"look where it comes from; if you trust {package}: export {TRUST}={package}"
        raise BadInput("model.kind", f"{kind!r} is no network of neurolit", hint)
    try:
        found: type[Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        problem = f"{kind!r} cannot be imported ({error})"
        raise BadInput("model.kind", problem, "put the folder of the package on PYTHONPATH") from error
    return found


def export_bundle(folder: Path, bundle: Bundle, state: dict[str, Tensor]) -> Path:
    """Write a bundle, whole or not at all, and return its folder."""
    plain = {name: value for name, value in asdict(bundle).items() if name != "folder"}
    plain |= {"signal": bundle.signal.to_dict(), "origin": bundle.origin.to_dict()}
    with OutputFolder(Path(folder).parent).folder(Path(folder).name) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part / WEIGHTS)
        plain["weights_sha256"] = fingerprint(part / WEIGHTS)
        plain = json.loads(canonical_json(plain))  # the types that JSON has, which is what the checksum is of
        (part / DESCRIPTION).write_text(_text({**plain, "sha256": digest_of(plain)}))
    return folder


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle, given its folder or the run folder that holds it.

    Raises
    ------
    BadInput
        If there is no bundle, its description is damaged or contradicts itself, or its schema is another one.
    """
    folder = Path(path)
    if not (folder / DESCRIPTION).is_file() and (folder / "bundle" / DESCRIPTION).is_file():
        folder = folder / "bundle"
    if not (folder / DESCRIPTION).is_file():
        if not Path(path).exists():
            raise absent(path)
        below = (Path(path).glob(f"{'*/' * depth}{DESCRIPTION}") for depth in (1, 2, 3))
        inside = [str(found.parent) for several in below for found in sorted(several)]
        hint = f"choose one of: {', '.join(inside[:5])}" if inside else "give the bundle folder that train.py printed"
        raise BadInput(path, "holds no bundle", hint)
    file = folder / DESCRIPTION
    try:
        text = file.read_text()
        plain = json.loads(text)
        found = plain["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(file, "is damaged", _AGAIN) from error
    if isinstance(found, int) and found < SCHEMA_VERSION:
        problem = f"has schema {found}, which does not say what it was trained on"
        raise BadInput(folder, problem, _OTHER_VERSION)
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        raise BadInput(folder, f"has schema {found}, newer than {SCHEMA_VERSION}", "update neurolit")
    stated, whole = plain.pop("sha256", None), False
    with suppress(ValueError):  # a number that is none
        whole = stated == digest_of(plain) and text == _text({**plain, "sha256": stated})
    if not whole:
        raise BadInput(file, "was changed after it was written (checksum differs)", _AGAIN)
    known = {f.name for f in fields(Bundle)} - {"folder"}
    if set(plain) != known:
        odd = ", ".join(sorted(set(plain) ^ known))
        raise BadInput(file, f"has missing or unknown fields ({odd})", "use the neurolit that wrote it")
    try:
        plain["signal"], plain["origin"] = SignalSpec.from_dict(plain["signal"]), Origin.from_dict(plain["origin"])
        return Bundle(**plain, folder=folder.resolve())
    except (TypeError, AttributeError, KeyError) as error:
        raise BadInput(file, f"does not describe the network's input or origin ({error})", _AGAIN) from error


def _text(plain: Mapping[str, Any]) -> str:
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def require_contract(
    wanted: SignalSpec, found: SignalSpec, source: str | Path, *, any_names: bool = False, any_unit: bool = False
) -> None:
    """Refuse epochs that are not what a network was trained on.

    Parameters
    ----------
    wanted
        What the bundle reads.
    found
        What was read; its shape is that of an epoch: ``(channel, frequency, time)``.
    any_names
        The user has chosen the channels.
    any_unit
        The network takes levels relative to the recording.

    Raises
    ------
    BadInput
        Naming the property and both values. A rate of 0 and frequencies that are not stated are not compared.
    """
    pairs: list[tuple[str, object, object]] = [("channels", len(wanted.channels), len(found.channels))]
    if not any_names:
        pairs.append(("channels", list(wanted.channels), list(found.channels)))
    if wanted.fs_hz and found.fs_hz:
        pairs.append(("sampling rate (Hz)", wanted.fs_hz, found.fs_hz))
    pairs.append(("epoch length (s)", wanted.window_s, found.window_s))
    if wanted.shape:
        rows, frames = found.shape[1] or 1, found.shape[2]
        views = max(1, (wanted.shape[-2] or rows) // rows)
        pairs.append(("frequencies × times of an epoch", wanted.shape[-2:], (views * rows, frames)))
    if wanted.freqs_hz:
        both = wanted.freqs_hz, found.freqs_hz
        first, other = ((round(float(hz[0]), 3), round(float(hz[-1]), 3), len(hz)) for hz in both)
        pairs.append(("frequencies (Hz)", first, other))
    if not any_unit:
        pairs.append(("unit", wanted.units, found.units))
    for name, expected, value in pairs:
        if expected != value:
            problem = f"{name}: the recording has {value}, the bundle reads {expected}"
            hint = "give a recording of the bundle's kind, or train a bundle on recordings like this one"
            raise BadInput(source, problem, hint)
