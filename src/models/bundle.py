"""The bundle: a trained network as a folder that ``infer.py`` can use with nothing else.

``model.safetensors`` holds the weights and the fitted buffers, ``bundle.json`` everything else a
stranger needs: the kind of network and its arguments, the signal it expects, the preprocessing stages
with their versions, class names, decision parameters, metrics, provenance. No pickle is written or read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from src.signals import BadInput, SignalSpec
from src.storage.atomic import atomic_folder
from src.storage.step import fingerprint

SCHEMA_VERSION = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "bundle.json"

NETWORKS: dict[str, tuple[str, str]] = {
    "sleep_epoch_cnn": ("src.models.sleep.networks", "SleepEpochCNN"),
    "sleep_sequence": ("src.models.sleep.sequence", "SleepSequenceNet"),
    "sleep_deep_cnn": ("src.models.sleep.original", "DeepCNN"),
    "sleep_linear": ("src.models.sleep.original", "LinearNet"),
    "sleep_simple_cnn": ("src.models.sleep.original", "SimpleCNN"),
    "spike_detector": ("src.models.spikes.networks", "SpikeDetector"),
    "spike_detector_original": ("src.models.spikes.networks", "OriginalDetector"),
    "spike_classifier": ("src.models.spikes.networks", "WaveformClassifier"),
    "spike_classifier_original": ("src.models.spikes.networks", "OriginalClassifier"),
    "grid_embedding": ("src.models.grids.networks", "EmbeddingForecaster"),
    "grid_planes": ("src.models.grids.networks", "PlaneForecaster"),
}
"""Network kind → (module, class). A bundle names a kind, never a Python path, so files outlive renamings."""


@dataclass(frozen=True)
class Bundle:
    """Everything of a bundle but its weights; see the module docstring for the fields."""

    task: str
    kind: str
    network_args: dict[str, Any]
    signal: SignalSpec
    stages: list[dict[str, Any]]
    classes: list[str]
    decision: dict[str, Any]
    metrics: dict[str, Any]
    split: dict[str, Any]
    provenance: dict[str, Any]
    schema_version: int = SCHEMA_VERSION
    weights_sha256: str = ""
    folder: Path | None = None

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
            raise BadInput(path, "is missing or damaged (checksum differs)", "export the bundle again or copy it anew")
        try:
            network = build_network(self.kind, self.network_args)
        except BadInput:
            raise
        except Exception as error:  # whatever a constructor makes of arguments that are not its own
            problem = f"describes no {self.kind} ({' '.join(str(error).split())[:120]})"
            raise BadInput(self.folder / DESCRIPTION, problem, "use the version that wrote it") from error
        try:
            network.load_state_dict(load_file(path))
        except (RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(path, f"does not fit a {self.kind} ({reason})", "use the version that wrote it") from error
        return network.eval()

    def require_task(self, task: str) -> None:
        """Raise ``BadInput`` unless the bundle was trained for ``task``."""
        if self.task != task:
            raise BadInput(self.folder or "bundle", f"is a {self.task} bundle, not {task}", f"give a {task} bundle")

    def require_stages(self, versions: Mapping[str, int]) -> None:
        """Raise ``BadInput`` unless all preprocessing is known, in the ``{name: version}`` of this installation."""
        for stage in self.stages:
            name, version = str(stage.get("stage")), stage.get("version")
            if versions.get(name) != version:
                known = f"here it is {versions[name]}" if name in versions else "unknown here"
                where, hint = self.folder or "bundle", "use the neurolit that wrote it, or train again"
                raise BadInput(where, f"needs version {version} of the preprocessing {name}, {known}", hint)


def build_network(kind: str, arguments: dict[str, Any]) -> nn.Module:
    """A network of one of the :data:`NETWORKS` with fresh weights."""
    try:
        network: nn.Module = network_class(kind)(**arguments)
    except TypeError as error:
        problem = f"the network's arguments do not fit a {kind} ({error})"
        raise BadInput("bundle", problem, "correct them, or use the neurolit that wrote the bundle") from error
    return network


def network_class(kind: str) -> type[nn.Module]:
    """The class that one of the :data:`NETWORKS` is made of."""
    if kind not in NETWORKS:
        raise BadInput("bundle", f"unknown network kind {kind!r}", f"known kinds: {', '.join(NETWORKS)}")
    module, name = NETWORKS[kind]
    found: type[nn.Module] = getattr(import_module(module), name)
    return found


def export_bundle(folder: Path, bundle: Bundle, state: dict[str, Tensor]) -> Path:
    """Write a bundle, whole or not at all, and return its folder."""
    plain = {k: v for k, v in asdict(bundle).items() if k != "folder"} | {"signal": bundle.signal.to_dict()}
    with atomic_folder(folder) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part / WEIGHTS)
        plain["weights_sha256"] = fingerprint(part / WEIGHTS)
        (part / DESCRIPTION).write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n")
    return folder


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle, given its folder or the run folder that holds it.

    Raises
    ------
    BadInput
        If there is no bundle, its description is damaged, or its schema is newer than this version's.
    """
    folder = Path(path)
    if not (folder / DESCRIPTION).is_file() and (folder / "bundle" / DESCRIPTION).is_file():
        folder = folder / "bundle"
    if not (folder / DESCRIPTION).is_file():
        raise BadInput(path, "holds no bundle", "give the bundle folder that train.py printed")
    try:
        plain = json.loads((folder / DESCRIPTION).read_text())
        found = plain["schema_version"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BadInput(folder / DESCRIPTION, "is damaged", "export the bundle again or copy it anew") from error
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        raise BadInput(folder, f"has schema {found}, newer than {SCHEMA_VERSION}", "update neurolit")
    known = {f.name for f in fields(Bundle)} - {"folder"}
    if set(plain) != known:
        odd = ", ".join(sorted(set(plain) ^ known))
        raise BadInput(folder / DESCRIPTION, f"has missing or unknown fields ({odd})", "export the bundle again")
    try:
        plain["signal"] = SignalSpec.from_dict(plain["signal"])
    except (TypeError, AttributeError) as error:
        problem = f"does not describe the network's input ({error})"
        raise BadInput(folder / DESCRIPTION, problem, "export the bundle again") from error
    return Bundle(**plain, folder=folder.resolve())
