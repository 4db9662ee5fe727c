"""Training of a forecast of sparse grids, and its scores beside those of the linear forecasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from src.models.bundle import build_network
from src.models.grids.entries import Forecast
from src.models.grids.linear import FLOORS, LinearForecast, fit_linear, linear_forecasts
from src.models.grids.losses import LOSSES, as_log_odds, sparse_loss, true_activity
from src.models.grids.scores import ForecastScores, row
from src.models.parallel import global_mean
from src.models.trained_module import ADAMW, WARMUP_COSINE, TrainedModule
from src.signals import BadInput

MODEL = "model"
"""Name of the network among the forecasts."""
LINEAR = ("mean rate", "persistence", "autoregression", "linear population")


class GridForecasting(TrainedModule):
    """Which occupied voxels are active in the frames to come.

    The network is built when the training statistics or a checkpoint arrive, because they say how many voxels there
    are. The first whole validation chooses floors and thresholds of the linear forecasts, and every validation the
    thresholds of the network and which forecast is used: the network only where it beats all linear ones.

    Parameters
    ----------
    signal, classes
        The datamodule's :class:`~src.signals.SignalSpec` as a dict and its class names.
    kind, network_args
        One of ``kinds`` and the arguments that the data do not determine.
    loss, positive_weight
        See :func:`~src.models.grids.losses.sparse_loss`.
    optimizer, scheduler
        ``_target_`` blocks as in ``conf/``.
    """

    kinds = ("grid_embedding", "grid_planes")
    monitor = ("val/bits_per_spike", "max")

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str,
        network_args: dict[str, Any],
        loss: str = "bernoulli",
        positive_weight: float = 1.0,
        optimizer: dict[str, Any] = ADAMW,
        scheduler: dict[str, Any] | None = WARMUP_COSINE,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise BadInput("model.loss", f"is {loss!r}", f"choose from: {', '.join(LOSSES)}")
        if not positive_weight > 0 or (loss == "poisson" and positive_weight != 1):
            raise BadInput(
                "model.positive_weight", f"is {positive_weight} with {loss}", "give a positive number, 1 for poisson"
            )
        self.save_hyperparameters()
        self.network_args: dict[str, Any] = {}
        self.network = None
        self.decision: dict[str, Any] = {}
        self.validated: dict[str, ForecastScores] = {}
        self.tested: dict[str, ForecastScores] = {}
        self.example: dict[str, Any] = {}

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Build the network for the subjects' voxels, and begin with the linear forecasts."""
        fitted = fit_linear(statistics)
        brains = {
            "subjects": [str(s) for s in statistics["subjects"]],
            "n_voxels": [int(n) for n in np.diff(statistics["offsets"])],
            "planes": [int(n) for n in statistics["planes"]],
            "components": int(statistics["components"].shape[1]),
        }
        frames = {name: int(statistics[name]) for name in ("context", "horizon")}
        self._build({"brains": brains, **frames, **self.hparams["network_args"]})
        self.network.set_statistics(torch.from_numpy(statistics["voxels"]), fitted["linear population"])
        zeros = [0.0] * frames["horizon"]
        self.decision = {
            "loss": self.hparams["loss"],
            "forecast": MODEL,
            "threshold": zeros,
            "persistence": fitted["persistence"].weights[0, -1].tolist(),
            "baselines": {name: {"floor": FLOORS[0], "threshold": zeros} for name in LINEAR},
        }

    def _build(self, network_args: dict[str, Any]) -> None:
        self.network_args = network_args
        self.network = build_network(self.hparams["kind"], network_args).to(self.device)

    def configure_model(self) -> None:
        # Callbacks that copy the module, such as WeightAveraging, need its network before setup.
        if self.network is None and self._trainer is not None:
            self.setup("fit" if self.trainer.state.fn == TrainerFn.FITTING else "test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["forecasting"] = {"network_args": self.network_args, "decision": self.decision}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["forecasting"]
        self.decision = kept["decision"]
        if self.network is None or self.network_args != kept["network_args"]:
            self._build(kept["network_args"])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        total, count = sparse_loss(
            self.network(batch), batch, kind=self.hparams["loss"], positive_weight=self.hparams["positive_weight"]
        )
        loss = global_mean(total, total.new_tensor(float(max(count, 1))))
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def predict_log_odds(self, batch: Any) -> list[Forecast]:
        """The network's forecast as log-odds, whatever it was trained with."""
        return [f._replace(logits=as_log_odds(f.logits.float(), self.hparams["loss"])) for f in self.network(batch)]

    def linear_forecasts(self) -> dict[str, LinearForecast]:
        """The linear forecasts by name, cut at the floors that validation chose."""
        persistence = torch.tensor(self.decision["persistence"], device=self.device)
        floors = {name: found["floor"] for name, found in self.decision["baselines"].items()}
        return {name: f.cut_at(floors[name]) for name, f in linear_forecasts(self.network, persistence).items()}

    def predict_step(self, batch: Any, batch_idx: int) -> list[Forecast]:
        """Log-odds of every subject in the batch, by the forecast that validation chose."""
        chosen = self.decision["forecast"]
        return self.predict_log_odds(batch) if chosen == MODEL else self.linear_forecasts()[chosen](batch)

    def count(self, scores: ForecastScores, forecasts: list[Forecast], batch: Any) -> None:
        """Add the forecasts of a batch to some scores."""
        for forecast in forecasts:
            scores.update(forecast.logits, self.network.base(forecast.subject), true_activity(forecast, batch))

    def on_validation_epoch_start(self) -> None:
        self.validated = {MODEL: self._scores()}
        if self._deciding and "validation" not in self.decision:
            persistence = torch.tensor(self.decision["persistence"], device=self.device)
            self.shaped = {
                f"{name}@{floor}": forecast.cut_at(floor)
                for name, forecast in linear_forecasts(self.network, persistence).items()
                for floor in (FLOORS if forecast.weights.any() else FLOORS[:1])
            }
            self.validated |= {name: self._scores() for name in self.shaped}

    @property
    def _deciding(self) -> bool:
        """Whether a validation has a say in what is exported: within a training, after at least one epoch of it."""
        return self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def _scores(self) -> ForecastScores:
        return ForecastScores(self.network.horizon).to(self.device)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for name, scores in self.validated.items():
            self.count(scores, self.predict_log_odds(batch) if name == MODEL else self.shaped[name](batch), batch)

    def on_validation_epoch_end(self) -> None:
        bits, precision = self.validated[MODEL].bits_per_spike(), self.validated[MODEL].average_precision()
        self.log("val/bits_per_spike", float(bits.mean()), prog_bar=True, rank_zero_only=False)
        self.log("val/average_precision", float(precision.mean()), prog_bar=True, rank_zero_only=False)
        if self._deciding:
            self._decide(float(bits.mean()))

    def _decide(self, bits: float) -> None:
        """Thresholds that are best for F1 on validation, and the forecast that is best in bits per spike."""
        gains = self.decision.setdefault("validation", {})
        for name in LINEAR:
            shaped = {k: s for k, s in self.validated.items() if k.startswith(f"{name}@")}
            if not shaped:
                continue
            means = {k: float(s.bits_per_spike().mean()) for k, s in shaped.items()}
            best = max(means, key=lambda k: means[k])
            found = {"floor": float(best.partition("@")[2]), "threshold": shaped[best].f1()[1].tolist()}
            self.decision["baselines"][name], gains[name] = found, means[best]
        self.decision["threshold"] = self.validated[MODEL].f1()[1].tolist()
        gains[MODEL] = bits
        best_linear = max((name for name in gains if name != MODEL), key=lambda name: gains[name])
        self.decision["forecast"] = MODEL if bits > gains[best_linear] else best_linear

    def on_test_epoch_start(self) -> None:
        self.tested = {name: self._scores() for name in (*LINEAR, MODEL)}
        self.example = {}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        methods: dict[str, Callable[[Any], list[Forecast]]] = {**self.linear_forecasts(), MODEL: self.predict_log_odds}
        for name, method in methods.items():
            forecasts = method(batch)
            self.count(self.tested[name], forecasts, batch)
            if name == self.decision["forecast"] and not self.example:
                self.example = self._example(forecasts[0], batch)

    def on_test_epoch_end(self) -> None:
        for name, value in self.test_metrics().items():
            self.log(name, value, rank_zero_only=False)

    def _tested_row(self, name: str) -> dict[str, Any]:
        found = self.decision if name == MODEL else self.decision["baselines"][name]
        return row(self.tested[name], np.array(found["threshold"]))

    def test_metrics(self) -> dict[str, float]:
        """Scores of the network averaged over the horizon, ``test/…``, and of the forecast that is used."""
        means = {f"test/{name}": float(np.mean(values)) for name, values in self._tested_row(MODEL).items()}
        bits = {name: float(np.mean(self._tested_row(name)["bits"])) for name in (*LINEAR, MODEL)}
        best = max(bits[name] for name in LINEAR)
        return means | {
            "test/bits_over_best_baseline": means["test/bits"] - best,
            "test/bits_of_used_forecast": bits[self.decision["forecast"]],
        }

    def results(self) -> list[dict[str, Any]]:
        """One row per forecast: bits per spike, average precision and F1 over the horizon and at both its ends."""
        rows, last = [], self.network.horizon
        for name in self.tested:
            scores = self._tested_row(name)
            bits, precision = scores["bits"], scores["average_precision"]
            rows.append(
                {
                    "forecast": name,
                    "used": "yes" if name == self.decision["forecast"] else "",
                    "bits/spike": float(np.mean(bits)),
                    "step 1": bits[0],
                    f"step {last}": bits[-1],
                    "AP": float(np.mean(precision)),
                    "AP 1": precision[0],
                    f"AP {last}": precision[-1],
                    "F1": float(np.mean(scores["f1"])),
                    "per_step": [scores],
                }
            )
        return rows

    def tune(self, datamodule: Any) -> dict[str, Any]:
        """What the validations decided: log-odds above which a voxel counts as active, floors, the forecast to use."""
        return self.decision

    def _example(self, forecast: Forecast, batch: Any) -> dict[str, Any]:
        """The windows of the first test batch of one subject, for the figures."""
        span = self.network.span(forecast.subject)
        return {
            "subject": self.network.subjects[forecast.subject],
            "voxels": self.network.voxels[span].cpu().numpy(),
            "planes": self.network.planes[forecast.subject],
            "probability": torch.sigmoid(forecast.logits).cpu().numpy(),
            "truth": true_activity(forecast, batch).cpu().numpy(),
            "first": batch.first[forecast.rows].cpu().numpy(),
        }

    def media(self) -> dict[str, dict[str, Any]]:
        """What ``reports/media.py`` is to draw after a test."""
        step_s = 1 / self.hparams["signal"]["fs_hz"]
        gains = {name: scores.bits_per_spike() for name, scores in self.tested.items()}
        precision = {name: scores.average_precision() for name, scores in self.tested.items()}
        return {
            "forecast_gain": {"bits": gains, "average_precision": precision, "step_s": step_s},
            "forecast_planes": {**self.example, "step_s": step_s},
            "forecast_movie": {**self.example, "step_s": step_s},
        }

    def bundle_fields(self) -> dict[str, Any]:
        """What the bundle says of the network."""
        return {"task": "grid_forecasting", "kind": self.hparams["kind"], "network_args": self.network_args}
