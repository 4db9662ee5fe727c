"""Training of a forecast of sparse grids, and its scores beside those of the linear forecasts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from src.models.bundle import build_network
from src.models.grids.active_voxels import Forecast, index_lists, last_activity, sparse_loss, true_activity
from src.models.grids.linear import (
    FLOORS,
    LINEAR,
    MODEL,
    Forecaster,
    all_forecasts,
    fit_linear,
    linear_forecasts,
    thresholds,
)
from src.models.grids.scores import ForecastScores, row
from src.models.parallel import global_mean
from src.models.trained_module import ADAMW, WARMUP_COSINE, TrainedModule
from src.signals import BadInput

MARGIN = 0.005
"""Bits per spike by which the network has to beat the linear forecasts on validation, which also chose its epoch."""
STEPS = (1, 8, 32)
"""Frames of the horizon at which the field states its scores."""


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
    optimizer, scheduler
        ``_target_`` blocks as in ``conf/``.
    """

    task = "grid_forecasting"
    kinds = ("grid_planes",)
    monitor = ("val/bits_per_spike", "max")

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str,
        network_args: dict[str, Any],
        optimizer: dict[str, Any] = ADAMW,
        scheduler: dict[str, Any] | None = WARMUP_COSINE,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network_args: dict[str, Any] = {}
        self.network = None
        self.decision: dict[str, Any] = {}
        self.validated: dict[str, ForecastScores] = {}
        self.tested: dict[str, ForecastScores] = {}
        self.example: dict[str, Any] = {}

    def take_over(self, data: Any) -> None:
        # A batch numbers subjects and voxels, so the same numbers of another brain would give a forecast, a wrong one.
        super().take_over(data)
        known = self.network
        own = [(name, known.voxels[known.span(number)].tolist()) for number, name in enumerate(known.subjects)]
        if own != [(grids.subject, grids.voxels.tolist()) for grids in data.subjects]:
            problem = f"has other subjects or voxels than the network ({', '.join(known.subjects)})"
            raise BadInput("datamodule", problem, "forecast with infer.py, or make a new module")

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Build the network for the subjects' voxels, and begin with the linear forecasts."""
        brains = {
            "subjects": [str(s) for s in statistics["subjects"]],
            "n_voxels": [int(n) for n in np.diff(statistics["offsets"])],
            "planes": [int(n) for n in statistics["planes"]],
            "components": int(statistics["components"].shape[1]),
        }
        frames = [int(n) for n in statistics["frames"]]
        self._build({"brains": brains, "frames": frames, **self.hparams["network_args"]})
        self.network.load_state_dict(fit_linear(statistics), strict=False)
        zeros = [0.0] * frames[-1]
        self.decision = {
            "forecast": MODEL,
            "threshold": zeros,
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
        super().on_save_checkpoint(checkpoint)
        checkpoint["forecasting"] = {"network_args": self.network_args, "decision": self.decision}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint["forecasting"]
        for name, value in self.hparams["network_args"].items():
            if kept["network_args"].get(name) != value:
                problem = f"has {name}={kept['network_args'].get(name)}, not {value}"
                raise BadInput("checkpoint", problem, "load it without network_args, or train anew")
        self.decision = kept["decision"]
        if self.network is None or self.network_args != kept["network_args"]:
            self._build(kept["network_args"])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        total, count = sparse_loss(self.network(batch), batch)
        loss = global_mean(total, total.new_tensor(float(max(count, 1))))
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def predict_step(self, batch: Any, batch_idx: int) -> list[Forecast]:
        """Log-odds of every subject in the batch, by the forecast that validation chose."""
        return all_forecasts(self.network, self.decision)[self.decision["forecast"]](batch)

    def _count(self, scores: ForecastScores, forecasts: list[Forecast], batch: Any) -> None:
        for forecast in forecasts:
            truth, last = true_activity(forecast, batch), last_activity(forecast, batch)
            scores.update(forecast.logits, self.network.base(forecast.subject), truth, last)

    def on_validation_epoch_start(self) -> None:
        self.candidates: dict[str, Forecaster] = {MODEL: self.network}
        if self._deciding and "validation" not in self.decision:
            self.candidates |= {
                f"{name}@{floor}": forecast.cut_at(floor)
                for name, forecast in linear_forecasts(self.network).items()
                for floor in (FLOORS if forecast.weights.any() else FLOORS[:1])
            }
        self.validated = {name: self._scores() for name in self.candidates}

    @property
    def _deciding(self) -> bool:
        """Whether a validation has a say in what is exported: within a training, after at least one epoch of it."""
        return self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def _scores(self) -> ForecastScores:
        return ForecastScores(self.network.horizon).to(self.device)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        batch = index_lists(batch, self.network.voxels, self.network.offsets)
        for name, scores in self.validated.items():
            self._count(scores, self.candidates[name](batch), batch)

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
        self.decision["forecast"] = MODEL if bits > gains[best_linear] + MARGIN else best_linear

    def on_test_epoch_start(self) -> None:
        self.tested = {name: self._scores() for name in (*LINEAR, MODEL)}
        self.example = {}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        batch = index_lists(batch, self.network.voxels, self.network.offsets)
        for name, method in all_forecasts(self.network, self.decision).items():
            forecasts = method(batch)
            self._count(self.tested[name], forecasts, batch)
            if name == self.decision["forecast"] and not self.example:
                self.example = self._example(forecasts[0], batch)

    def _tested_row(self, name: str) -> dict[str, Any]:
        return row(self.tested[name], thresholds(self.decision)[name])

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
        """One row per forecast: scores averaged over the horizon, and errors at the frames that the field states."""
        rows = []
        for name in self.tested:
            scores = self._tested_row(name)
            means = {score: float(np.mean(values)) for score, values in scores.items()}
            rows.append(
                {
                    "forecast": name,
                    "used": "yes" if name == self.decision["forecast"] else "",
                    "bits/spike": means["bits"],
                    "step 1": scores["bits"][0],
                    f"step {self.network.horizon}": scores["bits"][-1],
                    "AP": means["average_precision"],
                    "F1": means["f1"],
                    **{f"MAE {s}": scores["mae"][s - 1] for s in STEPS if s <= self.network.horizon},
                    "over copy": means["mse_over_copy"],
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
        time = {"step_s": 1 / self.hparams["signal"]["fs_hz"], "gap": self.network.frames.gap}
        gains = {name: scores.bits_per_spike() for name, scores in self.tested.items()}
        precision = {name: scores.average_precision() for name, scores in self.tested.items()}
        return {
            "forecast_gain": {"bits": gains, "average_precision": precision, **time},
            "forecast_planes": {**self.example, **time},
            "forecast_movie": {**self.example, **time},
        }
