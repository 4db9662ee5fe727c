"""Training of a forecast of sparse grids, and its scores beside those of the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.models.bundle import build_network
from src.models.grids.baselines import FLOORS, Autoregression, make_baselines
from src.models.grids.losses import LOSSES, as_log_odds, sparse_loss, true_activity
from src.models.grids.networks import Forecast
from src.models.grids.population import fit_population
from src.models.grids.scores import ForecastScores, row
from src.models.parallel import global_mean
from src.models.trained_module import ADAMW, WARMUP_COSINE, TrainedModule
from src.signals import BadInput

MODEL = "model"


class GridForecasting(TrainedModule):
    """Which occupied voxels are active in the frames to come.

    The network is built when the training statistics arrive, because they say how many voxels there are.

    Parameters
    ----------
    signal, classes
        The datamodule's :class:`~src.signals.SignalSpec` as a dict and its class names.
    kind, network_args
        A key of ``bundle.NETWORKS`` and the arguments that the data do not determine.
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
        self.baselines: dict[str, Autoregression] = {}
        self.thresholds: dict[str, np.ndarray] = {}
        self.tested: dict[str, ForecastScores] = {}
        self.example: dict[str, Any] = {}

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Build the network for the subjects' voxels, and fit the baselines."""
        offsets = statistics["offsets"]
        self.network_args = {
            "subjects": [str(s) for s in statistics["subjects"]],
            "n_voxels": [int(n) for n in np.diff(offsets)],
            "planes": [int(n) for n in statistics["planes"]],
            "context": int(statistics["context"]),
            "horizon": int(statistics["horizon"]),
            "components": int(statistics["components"].shape[1]),
            **self.hparams["network_args"],
        }
        self.network = build_network(self.hparams["kind"], self.network_args)
        rates, voxels = (torch.from_numpy(statistics[name]) for name in ("rates", "voxels"))
        self.baselines = make_baselines(statistics)
        own = self.baselines["autoregression"]
        self.network.adopt(rates, voxels, own.weights)
        population = fit_population(own, statistics)
        self.baselines["linear population"] = population
        self.network.adopt_population(population.read, population.write, population.readout)
        self.val_scores = ForecastScores(self.network.horizon)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        total, count = sparse_loss(
            self.network(batch),
            batch,
            kind=self.hparams["loss"],
            positive_weight=self.hparams["positive_weight"],
        )
        loss = global_mean(total, total.new_tensor(float(max(count, 1))))
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def predict_log_odds(self, batch: Any) -> list[Forecast]:
        """The network's forecast as log-odds, whatever it was trained with."""
        return [f._replace(logits=as_log_odds(f.logits.float(), self.hparams["loss"])) for f in self.network(batch)]

    def methods(self) -> dict[str, Callable[[Any], list[Forecast]]]:
        """The baselines and the network, each from a batch to log-odds."""
        return {**self.baselines, MODEL: self.predict_log_odds}

    def count(self, scores: ForecastScores, forecasts: list[Forecast], batch: Any) -> None:
        """Add the forecasts of a batch to some scores."""
        for forecast in forecasts:
            base = self.network.base(forecast.subject)
            scores.update(forecast.logits, base, true_activity(forecast, batch))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.count(self.val_scores, self.predict_log_odds(batch), batch)

    def on_validation_epoch_end(self) -> None:
        bits, precision = self.val_scores.bits_per_spike(), self.val_scores.average_precision()
        self.log("val/bits_per_spike", float(bits.mean()), prog_bar=True, rank_zero_only=False)
        self.log("val/average_precision", float(precision.mean()), prog_bar=True, rank_zero_only=False)
        self.val_scores.reset()

    def on_test_epoch_start(self) -> None:
        self._tune_on(self.trainer.datamodule)  # type: ignore[attr-defined]
        self.tested = {name: ForecastScores(self.network.horizon).to(self.device) for name in self.methods()}
        self.example = {}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        for name, method in self.methods().items():
            forecasts = method(batch)
            self.count(self.tested[name], forecasts, batch)
            if name == MODEL and not self.example:
                self.example = self._example(forecasts[0], batch)

    def on_test_epoch_end(self) -> None:
        for name, value in self.test_metrics().items():
            self.log(name, value, rank_zero_only=False)

    def test_metrics(self) -> dict[str, float]:
        """Scores of the network averaged over the horizon, ``test/…``."""
        scores = row(self.tested[MODEL], self.thresholds[MODEL])
        best = max(float(np.mean(row(self.tested[n], self.thresholds[n])["bits"])) for n in self.baselines)
        means = {f"test/{name}": float(np.mean(values)) for name, values in scores.items()}
        return means | {"test/bits_over_best_baseline": means["test/bits"] - best}

    def results(self) -> list[dict[str, Any]]:
        """One row per forecast: bits per spike, average precision and F1 over the horizon and at both its ends."""
        rows = []
        for name in self.tested:
            scores = row(self.tested[name], self.thresholds[name])
            last = self.network.horizon
            rows.append(
                {
                    "forecast": name,
                    "bits/spike": float(np.mean(scores["bits"])),
                    "step 1": scores["bits"][0],
                    f"step {last}": scores["bits"][-1],
                    "AP": float(np.mean(scores["average_precision"])),
                    "AP 1": scores["average_precision"][0],
                    f"AP {last}": scores["average_precision"][-1],
                    "F1": float(np.mean(scores["f1"])),
                    "per_step": [scores],
                }
            )
        return rows

    def tune(self, datamodule: Any) -> dict[str, Any]:
        """Log-odds above which a voxel is forecast to be active, per horizon step, best for F1 on validation."""
        if not self.thresholds:
            self._tune_on(datamodule, alone=True)
        return {
            "loss": self.hparams["loss"],
            "threshold": self.thresholds[MODEL].tolist(),
            "persistence": self.baselines["persistence"].weights[0, -1].tolist(),
            "baselines": {
                name: {"floor": baseline.floor, "threshold": self.thresholds[name].tolist()}
                for name, baseline in self.baselines.items()
            },
        }

    @torch.no_grad()
    def _tune_on(self, datamodule: Any, *, alone: bool = False) -> None:
        self.network.eval()
        device = next(self.network.parameters()).device
        floors = {name: FLOORS if b.weights.any() else FLOORS[:1] for name, b in self.baselines.items()}
        shaped = {f"{name}@{floor}": b.cut_at(floor) for name, b in self.baselines.items() for floor in floors[name]}
        methods: dict[str, Callable[[Any], list[Forecast]]] = {**shaped, MODEL: self.predict_log_odds}
        scores = {name: ForecastScores(self.network.horizon, alone=alone).to(device) for name in methods}
        for batch in datamodule.val_dataloader():
            given = datamodule.with_image(_moved(batch, device), self.network.coarsen)
            for name, method in methods.items():
                self.count(scores[name], method(given), given)
        for name in self.baselines:
            best = max(floors[name], key=lambda floor: float(scores[f"{name}@{floor}"].bits_per_spike().mean()))
            self.baselines[name] = shaped[f"{name}@{best}"]
            self.thresholds[name] = scores[f"{name}@{best}"].f1()[1]
        self.thresholds[MODEL] = scores[MODEL].f1()[1]

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


def _moved(batch: Any, device: Any) -> Any:
    return type(batch)(*(None if field is None else field.to(device) for field in batch))
