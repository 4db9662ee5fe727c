"""From EDF to report, and training against a bare loop: seconds, the network's share, epochs per second.

python -m benchmarks.sleep_staging [--hours 8] [--repeats 3]

Scoring: one simulated night through ``predict`` as ``infer.py`` calls it, the process warm (imports done), with the
default network of ``experiment=sleep_context``; its weights are fresh, which costs the same. Targets: 5 s in all, 1 s
for the network. Training: the same network, windows and optimiser through the trainer and in a loop of ten lines.
Target: at least 0.9 of the loop's epochs per second. One thread; the least of the repeats counts.
"""

import argparse
import io
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn import functional

from src.datamodules.sleep import NightEpochs
from src.datamodules.sleep_sequences import SleepSequenceData, WindowDataset
from src.models.bundle import Bundle, export_bundle, load_bundle
from src.models.sleep.context_stager import SleepContextStager
from src.predict import sleep as predictor
from src.preprocess.sleep.epochs import EpochSettings
from src.preprocess.sleep.prepare import SLEEP_EPOCHS
from src.runs.assemble import quiet_trainer
from src.signals import HUMAN_STAGES, Origin, SignalSpec
from src.simulate.sleep import write_night

SETTINGS = EpochSettings.from_params(
    {"channels": ["EEG Fpz-Cz"], "features": {"fs_hz": 100.0, "window_s": 2.0, "hop_s": 1.0, "max_hz": 40.0}}
)
SHAPE = (100, 1, *SETTINGS.features.shape)
AXES = ("epoch", "channel", "frequency", "time")
SPEC = SignalSpec(("EEG Fpz-Cz",), 100.0, 30.0, "dB re 1 uV^2/Hz", AXES, SHAPE)


def stager(shape: tuple[int, ...]) -> SleepContextStager:
    signal = SignalSpec(("EEG Fpz-Cz",), 100.0, 30.0, "uV", AXES, shape)
    model = SleepContextStager(signal.to_dict(), list(HUMAN_STAGES))
    rows = {"mean_db": np.full(shape[1:3], -5.0), "std_db": np.full(shape[1:3], 8.0), "class_counts": np.ones(5)}
    model.set_normalization(rows)
    return model


def time_scoring(folder: Path, hours: float, repeats: int) -> dict[str, float]:
    """Seconds of one night from EDF to report, and those spent in the network."""
    psg, _ = write_night(folder, 0, 1, seed=0, hours=hours)
    model = stager(SHAPE)
    described = Bundle(
        signal=SPEC,
        steps=[SLEEP_EPOCHS.describe(SETTINGS.to_params("edf_folder"))],
        classes=list(HUMAN_STAGES),
        decision={"temperature": 1.0},
        metrics={},
        split={},
        origin=Origin(True, ("nights",), 4, 8.0),
        provenance={},
        task=model.task,
        kind=model.kind,
        network_args=model.network_args,
    )
    bundle = load_bundle(export_bundle(folder / "bundle", described, model.network.state_dict()))
    plain, spent = predictor.stage_probabilities, []

    def timed(*arguments: Any, **named: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = plain(*arguments, **named)
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
        return found

    predictor.stage_probabilities = timed
    walls, cpus = [], []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        with redirect_stdout(io.StringIO()):
            summary = predictor.predict(bundle, psg, folder / "out")
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        assert summary.exit_code == 0, summary.failures
    predictor.stage_probabilities = plain
    network_wall_s, network_cpu_s = (min(column) for column in zip(*spent[1:], strict=True))
    return {
        "wall_s": min(walls[1:]),
        "cpu_s": min(cpus[1:]),
        "network_wall_s": network_wall_s,
        "network_cpu_s": network_cpu_s,
    }


class Windows(SleepSequenceData):
    """Nights of noise, without a source."""

    def __init__(self, nights: list[NightEpochs]) -> None:
        super().__init__({}, {}, {"method": "fraction", "val": 0.2, "test": 0.2}, window_epochs=SHAPE[0])
        self.datasets = {"train": WindowDataset(nights, SHAPE[0])}
        levels = np.zeros(SHAPE[1:3])
        self.datasets["train"].fitted = {"mean_db": levels, "std_db": levels + 1, "class_counts": np.full(5, 180)}

    def prepare_data(self) -> None: ...

    def setup(self, stage: str) -> None: ...


def time_training(repeats: int, n_nights: int = 2) -> dict[str, float]:
    """Epochs (of sleep) per CPU second, through the trainer and in a bare loop."""
    rng = torch.Generator().manual_seed(0)
    nights = [
        NightEpochs(str(i), str(i), torch.randn(900, *SHAPE[1:], generator=rng).half(), torch.arange(900) % 5, SPEC)
        for i in range(n_nights)
    ]
    data, speeds = Windows(nights), {"bare_loop": 0.0, "trainer": 0.0}
    loader = data.train_dataloader()
    seen = len(loader) * data.batch_size * SHAPE[0]
    for _ in range(repeats):
        for name, run in (("bare_loop", _loop), ("trainer", _trainer)):
            model = stager(SHAPE)
            begun = time.process_time()
            run(model, data)
            speeds[name] = max(speeds[name], seen / (time.process_time() - begun))
    return {**speeds, "ratio": speeds["trainer"] / speeds["bare_loop"]}


def _loop(model: SleepContextStager, data: Windows) -> None:
    model.network.train()
    optimizer = torch.optim.AdamW(model.network.parameters(), 1e-3)
    for levels, stages, _ in data.train_dataloader():
        loss = functional.cross_entropy(model.network(levels).flatten(0, 1), stages.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimizer.step()


def _trainer(model: SleepContextStager, data: Windows) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data.train_dataloader())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_trainer()
    with tempfile.TemporaryDirectory() as folder:
        found = time_scoring(Path(folder), given.hours, given.repeats)
    print(f"EDF to report, {given.hours:g} h: {found['wall_s']:.2f} s wall, {found['cpu_s']:.2f} CPU-s (target 5 s)")
    print(
        f"  of which the network: {found['network_wall_s']:.2f} s wall, {found['network_cpu_s']:.2f} CPU-s (target 1 s)"
    )
    speed = time_training(given.repeats)
    print(f"training, epochs per CPU-s: {speed['trainer']:.0f} by the trainer, {speed['bare_loop']:.0f} by a bare loop")
    print(f"  ratio {speed['ratio']:.2f} (target 0.9)")


if __name__ == "__main__":
    main()
