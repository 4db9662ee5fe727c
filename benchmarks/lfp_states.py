"""States of rodents: the rule without labels beside a network trained on labels, on recordings new to the network.

    python -m benchmarks.lfp_states [--shared ../shared/data]

Simulated sessions at 1250 and at 250 Hz (muscle activity can be seen in the first alone), a mouse scored by people
(EEG band powers and EMG, 4-s epochs, with ``--shared``), and the rat excerpt, which nobody scored. The network is
trained on twelve simulated sessions; the rule has seen nothing. ``python train.py experiment=sleep_rodent`` trains and
tests a network on the mouse, on the stretches on which the rule is tested here.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rich.console import Console

from src.datamodules.sleep_sequences import SleepSequenceData
from src.models.sleep.context_stager import SleepContextStager
from src.preprocess.lfp.epochs import lfp_epochs
from src.preprocess.lfp.parameters import LfpEpochsParams
from src.preprocess.lfp.states import Features, robust_scores, score
from src.preprocess.sleep.bandpower_files import MOUSE_DAYS, read_bandpower_mouse
from src.preprocess.sleep.epochs import read_epochs
from src.reports.tables import ResultsTable
from src.signals import UNSCORED, SourceOptions
from src.simulate.lfp import simulate_session
from src.storage.progress import show

EPOCH_S, MINUTES, TRAINED, TESTED = 4.0, 30.0, range(12), range(20, 24)


def agreement(truth: NDArray, found: NDArray) -> dict[str, str]:
    """Cohen's κ and macro-F1 of scored epochs."""
    kept = (truth != UNSCORED) & (found != UNSCORED)
    table = np.zeros((3, 3))
    np.add.at(table, (truth[kept], found[kept]), 1)
    chance = (table.sum(0) * table.sum(1)).sum() / table.sum() ** 2
    f1 = 2 * np.diag(table) / np.maximum(table.sum(0) + table.sum(1), 1)
    return {
        "κ": f"{(np.trace(table) / table.sum() - chance) / (1 - chance):.3f}",
        "macro-F1": f"{f1.mean():.3f}",
        **{f"F1 {name}": f"{value:.3f}" for name, value in zip(("Wake", "NREM", "REM"), f1, strict=True)},
        "epochs": str(int(kept.sum())),
    }


def simulated(folder: Path, seeds: range, fs_hz: float) -> None:
    """Sessions of 30 min, their epochs with the true states, and their states by the rule."""
    for seed in seeds:
        place = folder / "traces" / f"rat{seed}"
        simulate_session(place, name=f"rat{seed}", minutes=MINUTES, shanks=(0,), n_channels=2, fs_hz=fs_hz, seed=seed)
        for labelled in (True, False):
            output = folder / ("labelled" if labelled else "by_rule")
            params = LfpEpochsParams(str(place), str(output / f"rat{seed}"), max_hz=60.0, workers=1)
            lfp_epochs(params, labelled=labelled)
        for traces in place.rglob("*.npz"):
            traces.unlink()


def by_rule(folder: Path) -> tuple[NDArray, NDArray]:
    """True states, and those of the rule, of all sessions of a folder."""
    truth, found = list[NDArray](), list[NDArray]()
    for epochs in sorted((folder / "labelled").rglob("epochs.h5")):
        truth.append(read_epochs(epochs.parent).stages)
        rows = next((folder / "by_rule" / epochs.parents[1].name).rglob("hypnogram.csv")).read_text().splitlines()[1:]
        found.append(np.array([("Wake", "NREM", "REM").index(row.split(",")[2]) for row in rows], np.int8))
    return np.concatenate(truth), np.concatenate(found)


def trained(root: Path, folder: Path) -> Any:
    """The network of ``experiment=sleep_rodent``, trained on prepared epochs."""
    pl.seed_everything(0, verbose=False)
    features = {"kind": "bandpower", "epoch_s": EPOCH_S, "window_s": 2.0}
    data = SleepSequenceData(
        source={"kind": "prepared", "root": str(root)},
        epochs={"channels": ["0", "1"], "stages": "rodent", "features": features},
        split={"method": "fraction", "val": 0.2, "test": 0.1, "seed": 0},
        augment={}, window_epochs=64, views=["absolute"], batch_size=16,
        execution={"cache_dir": str(folder / "cache"), "workers": 1, "seed": 0},
    )  # fmt: skip
    data.setup("fit")
    network = {"width": 32, "hidden": 32, "layers": 1, "filters": 16, "blocks": 1, "dropout": 0.2}
    optimizer = {"_target_": "torch.optim.AdamW", "lr": 3e-3, "weight_decay": 1e-2}
    model = SleepContextStager(data.signal.to_dict(), list(data.classes), "sleep_sequence", network, optimizer)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=12, accelerator="cpu", logger=False, default_root_dir=folder, **quiet)
    trainer.fit(model, data)
    return model.eval()


@torch.no_grad()
def by_network(model: Any, folder: Path) -> NDArray:
    """States of all sessions of a folder by a network."""
    found = []
    for path in sorted((folder / "labelled").rglob("epochs.h5")):
        epochs = read_epochs(path.parent)
        logits = model.network.score_night(torch.from_numpy(epochs.features.astype(np.float32)).half().float())
        found.append(np.where(epochs.usable, logits.argmax(dim=1).numpy(), UNSCORED))
    return np.concatenate(found)


def mouse_features(levels: NDArray, muscle: bool) -> Features:
    """Features of the rule from rows of dB: delta, theta, alpha, beta, gamma of the EEG, and the EMG."""
    z = robust_scores(levels)
    power = 10 ** (levels / 10)
    ratio = power[:, 1] / power[:, :3].sum(axis=1)
    return Features(z[:, 0] - z[:, 4], ratio, z[:, :5], levels[:, 5] if muscle else None)


def mouse(path: Path) -> list[dict[str, str]]:
    """The rule on both days of the mouse, with its EMG and without."""
    rows = []
    for muscle in (True, False):
        truth, found = list[NDArray](), list[NDArray]()
        for mode in MOUSE_DAYS.values():
            epochs = read_bandpower_mouse(path, mode)
            levels = np.where(epochs.usable[:, None], epochs.features[:, 0, :, 0], np.nan).astype(np.float64)
            last = slice(round(0.7 * len(levels)), None)  # what the network's split tests, ten minutes apart
            truth.append(epochs.stages[last])
            found.append(score(mouse_features(levels, muscle), EPOCH_S).stages[last])
        name = "rule, with EMG" if muscle else "rule, without EMG"
        rows.append({"recordings": "mouse", "by": name} | agreement(np.concatenate(truth), np.concatenate(found)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with sleep_mouse_bandpower and lfp_rat_hippocampus")
    shared, console, rows = parser.parse_args().shared, Console(), list[dict[str, str]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulated(folder / "train", TRAINED, 250.0)
        model = trained(folder / "train" / "labelled", folder)
        for fs_hz in (1250.0, 250.0):
            place = folder / f"{fs_hz:g}"
            simulated(place, TESTED, fs_hz)
            truth, found = by_rule(place)
            which = f"simulated, {fs_hz:g} Hz"
            rows.append({"recordings": which, "by": "rule"} | agreement(truth, found))
            rows.append({"recordings": which, "by": "network"} | agreement(truth, by_network(model, place)))
        if shared is not None:
            rows += mouse(shared / "sleep_mouse_bandpower" / "sampleData.npz")
            rat = shared / "lfp_rat_hippocampus" / "sample_data_2.npy"
            params = LfpEpochsParams(
                input_dir=str(rat), output_dir=str(folder / "rat"), source=SourceOptions(fs_hz=1000.0)
            )
            (artifact,) = lfp_epochs(params).values.values()
            console.print(f"rat excerpt, 150 s, unscored: {artifact.manifest['facts']['share']}", highlight=False)
    show(console, ResultsTable(rows, title="states by rule and by network"))


if __name__ == "__main__":
    main()
