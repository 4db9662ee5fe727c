"""What all LightningModules share: they take over what the data have fitted, and their optimizer is a configuration."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from src.models.bundle import Bundle, load_bundle
from src.models.schedule import make_optimizer
from src.signals import BadInput, is_trusted

ADAMW: dict[str, Any] = {"_target_": "torch.optim.AdamW", "lr": 2e-3, "weight_decay": 1e-2}
WARMUP_COSINE: dict[str, Any] = {"_target_": "src.models.schedule.warmup_cosine", "warmup": 0.1}
"""What a module is trained with where nothing else is said; the same as in ``conf/``."""
FINDING = {"kind", "channels", "aliases", "margin_s", "stages", "stage_coding", "text_epoch_s", "more_names"}
"""Parameters of steps that say how a recording and its scoring are found, and nothing of what is done with them."""


class TrainedModule(pl.LightningModule):
    """A network that needs the statistics of its training data: input normalisation, class weights, references.

    The data fit them in ``setup``, this module takes them over in its own: from ``Trainer.fit(model, datamodule)``
    or from the dataset of ``Trainer.fit(model, train_dataloaders)``, whichever has ``statistics()``. They are
    buffers: a checkpoint holds them, and a loaded module keeps its own. A subclass takes the arguments
    ``optimizer`` and ``scheduler``, saves them as hyperparameters, and says in :meth:`set_normalization` what is done
    with the statistics.

    Attributes
    ----------
    task
        Of the bundles.
    kinds
        Keys of ``bundle.NETWORKS`` that the module can train.
    monitor
        The score that chooses the best checkpoint, and whether more (``max``) or less (``min``) is better.
    """

    task: str
    kinds: tuple[str, ...] = ()
    monitor: tuple[str, str] = ("val/loss", "min")
    network: Any
    network_args: dict[str, Any]
    has_statistics: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("has_statistics", torch.tensor(0.0))  # or 1; a number, because weights may be averaged
        self.augment: Any = None
        self.steps: list[dict[str, Any]] = []
        self.of_bundle = False
        self.register_forward_pre_hook(_warn_of_raw_input)

    @property
    def lr(self) -> float:
        """Learning rate of ``optimizer``, under the name by which Lightning's ``Tuner`` looks for it."""
        return float(self.hparams["optimizer"]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self.hparams["optimizer"] = {**self.hparams["optimizer"], "lr": value}

    def forward(self, *inputs: Any) -> Any:
        """What the network makes of a batch."""
        return self.network(*inputs)

    @property
    def kind(self) -> str:
        """Which of its ``kinds`` the network is."""
        return str(self.hparams.get("kind", self.kinds[0]))

    @classmethod
    def from_bundle(cls, bundle: str | Path | Bundle, **arguments: Any) -> Self:
        """The module with the weights of a bundle: to predict or test with ``Trainer``, or to train it further.

        Parameters
        ----------
        bundle
            A bundle, its folder, or the folder of the run that it belongs to.
        arguments
            Further arguments of the constructor, such as ``optimizer``. Weights of classes are not part of a bundle:
            training goes on with those of the new data.

        Raises
        ------
        BadInput
            If the bundle is damaged, or of a network that this module does not train.
        """
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        if loaded.kind not in cls.kinds and not is_trusted(loaded.kind):
            hint = f"{cls.__name__} trains {', '.join(cls.kinds)}"
            raise BadInput(loaded.folder or "bundle", f"holds a network of kind {loaded.kind}", hint)
        named = {"kind": loaded.kind, "network_args": dict(loaded.network_args)}
        given = {name: value for name, value in named.items() if name in inspect.signature(cls).parameters}
        module: Any = cls(signal=loaded.signal.to_dict(), classes=list(loaded.classes), **given, **arguments)  # type: ignore[call-arg]
        module.network_args, module.network = dict(loaded.network_args), loaded.network().train()
        if hasattr(module, "decision"):
            module.decision = dict(loaded.decision)
        module.steps, module.of_bundle = loaded.steps, True
        module.has_statistics.fill_(1.0)
        return module

    def to_bundle(self, data: Any, metrics: Mapping[str, float], provenance: Mapping[str, Any] | None = None) -> Bundle:
        """The description of the trained network, with decisions tuned on the validation data of a datamodule."""
        return Bundle(
            signal=data.signal,
            steps=data.steps(),
            classes=list(data.classes),
            metrics=dict(metrics),
            split=data.split.to_dict(),
            origin=data.origin(),
            provenance=dict(provenance or {}),
            decision=self.tune(data),
            task=self.task,
            kind=self.kind,
            network_args=self.network_args,
        )

    def tune(self, data: Any) -> dict[str, Any]:
        """What turns the network's outputs into results, chosen on the validation data of a datamodule."""
        raise NotImplementedError

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Fill the buffers with what was fitted on the training data; see the subclass for the names."""
        raise NotImplementedError

    def take_over(self, data: Any) -> None:
        """Take the statistics of a datamodule or training dataset, unless there are some, and its augmentation.

        Raises
        ------
        BadInput
            If a datamodule prepares its recordings otherwise than the module's input was prepared.
        """
        if hasattr(data, "steps"):
            self._require_same_input(data)
            self.steps = self.steps or data.steps()
        if not self.has_statistics:
            self.set_normalization(data.statistics())
            self.has_statistics.fill_(1.0)
        elif self.of_bundle and hasattr(self, "class_weights"):  # which are no part of a bundle, unlike normalisation
            network = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.set_normalization(data.statistics())
            self.network.load_state_dict(network)
        self.augment = getattr(data, "augment", None)

    def _require_same_input(self, data: Any) -> None:
        own = _settings(self.hparams["signal"], self.steps)
        given = _settings(data.signal.to_dict(), data.steps())
        for name, value in own.items():
            if given.get(name) != value:
                problem = f"has {name} {given.get(name)}, the module was made for {value}"
                raise BadInput("datamodule", problem, "give the module's settings, or make a new module")

    def setup(self, stage: str) -> None:
        data = self._training_data(stage)
        if data is not None:
            self.take_over(data)
        elif not self.has_statistics:
            raise BadInput(
                type(self).__name__,
                "has no statistics of its training data, so its input would not be normalised",
                "give Trainer a datamodule of src/datamodules or a DataLoader of a dataset with statistics(), call "
                "take_over with either, or load a checkpoint",
            )
        if getattr(self.trainer, "overfit_batches", 0):
            self.augment = None  # what is to be learned by heart has to stay the same
            if hasattr(data, "same"):
                data.same = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["steps"] = self.steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.steps = checkpoint.get("steps", [])

    def test_metrics(self) -> dict[str, float]:
        """Scores of the last test, ``test/…``; none, unless a subclass has some."""
        return {}

    def on_test_epoch_end(self) -> None:
        for name, value in self.test_metrics().items():
            self.log(name, value, rank_zero_only=False)

    def _training_data(self, stage: str) -> Any:
        """The datamodule, or else the dataset behind the training loader, if it knows its statistics."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if hasattr(datamodule, "statistics"):
            return datamodule
        if stage != "fit":
            return None
        self.trainer.fit_loop.setup_data()
        loader = self.trainer.train_dataloader
        dataset = getattr(loader, "dataset", None)
        return dataset if hasattr(dataset, "statistics") else None

    def parameter_groups(self) -> Any:
        """What the optimizer moves: parameters, or groups of them."""
        return self.parameters()

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        blocks = self.hparams["optimizer"], self.hparams["scheduler"]
        return make_optimizer(self.parameter_groups(), *blocks, steps=steps, monitor=self.monitor[0])


def _settings(signal: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What has to be the same in training and in prediction; channels may differ, and so may the epochs of a window."""
    known = {name: value for name, value in signal.items() if name != "channels"}
    if "axes" in known:
        known["shape"] = [n for n, axis in zip(signal["shape"], signal["axes"], strict=True) if axis != "epoch"]
    prepared = {f"{s['step']}.{k}": v for s in steps for k, v in s["params"].items() if k not in FINDING}
    return known | prepared


def _warn_of_raw_input(module: TrainedModule, inputs: Any) -> None:
    if not module.has_statistics:
        if module.network is None:
            raise BadInput(type(module).__name__, "has no network without statistics", "call take_over(datamodule)")
        text = "has no statistics of training data yet, so its input is not normalised: call take_over(datamodule)"
        warnings.warn(f"{type(module).__name__} {text}", stacklevel=4)


def recordings_of(loaders: Any) -> list[str]:
    """Names of the recordings behind evaluation loaders, in the order that the batches count them.

    Raises
    ------
    BadInput
        If the dataset does not name them.
    """
    loader = loaders[0] if isinstance(loaders, Sequence) else loaders
    names = getattr(getattr(loader, "dataset", None), "recordings", None)
    if names is None:
        hint = "give a DataLoader of a dataset with the attribute recordings, or a datamodule of src/datamodules"
        raise BadInput("dataloaders", "do not say which recordings they hold", hint)
    return list(names)
