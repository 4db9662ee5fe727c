"""Rodents through the same rooms: 4-s epochs in three states, from LFP sessions and from EDF files."""

import edfio
import numpy as np
import pytorch_lightning as pl

from src.datamodules.sleep_sequences import SleepSequenceData
from src.models.bundle import export_bundle, load_bundle
from src.models.sleep.context_stager import SleepContextStager
from src.predict.lfp import predict as predict_lfp
from src.predict.sleep import predict
from src.preprocess.lfp.epochs import LFP_EPOCHS
from src.preprocess.lfp.parameters import SpectrogramParams
from src.signals import RODENT_STAGES
from src.simulate.lfp import simulate_session, simulate_states, simulate_traces
from src.storage.step import ensure
from tests.trainers import quiet_trainer

FS_HZ = 200.0


def write_edf_session(folder, seed, minutes=16.0):
    rng = np.random.default_rng(seed)
    stages = simulate_states(rng, int(minutes * 15), 4.0)
    blocks = simulate_traces(rng, stages, 4.0, int(minutes * 60 * FS_HZ), 1, FS_HZ)
    lfp = np.concatenate(list(blocks))[:, 0].astype(np.float64)
    tone = np.repeat(np.array([40.0, 8.0, 3.0])[stages], round(4 * FS_HZ))
    emg = rng.standard_normal(len(lfp)) * tone
    signals = [
        edfio.EdfSignal(
            row,
            FS_HZ,
            label=name,
            physical_dimension="uV",
            physical_range=(-np.abs(row).max() - 1, np.abs(row).max() + 1),
        )
        for name, row in (("EEG", lfp), ("EMG", emg))
    ]
    edfio.Edf(signals, data_record_duration=4.0).write(folder / f"rat{seed}.edf")
    lines = [f"{4 * i},{4},{RODENT_STAGES[s]}" for i, s in enumerate(stages)]
    (folder / f"rat{seed}.csv").write_text("onset,duration,stage\n" + "\n".join(lines) + "\n")


def train(source, epochs, tmp_path, max_epochs=8):
    """What ``train.py`` does, on one screen."""
    pl.seed_everything(0, verbose=False)
    data = SleepSequenceData(
        source=source, epochs=epochs, split={"method": "fraction", "val": 0.2, "test": 0.2, "seed": 0}, augment={},
        window_epochs=24, views=["absolute"], batch_size=8,
        execution={"cache_dir": str(tmp_path / "cache"), "workers": 1, "seed": 0},
    )  # fmt: skip
    data.setup("fit")
    network = {"width": 12, "hidden": 12, "layers": 1, "filters": 8, "blocks": 1, "dropout": 0.1}
    optimizer = {"_target_": "torch.optim.AdamW", "lr": 1e-2, "weight_decay": 1e-2}
    model = SleepContextStager(data.signal.to_dict(), list(data.classes), "sleep_sequence", network, optimizer)
    trainer = quiet_trainer(tmp_path, max_epochs=max_epochs)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    bundle = model.to_bundle(data, model.test_metrics())
    return model, load_bundle(export_bundle(tmp_path / "bundle", bundle, model.network.state_dict()))


def test_edf_files_of_eeg_and_emg(tmp_path):
    folder = tmp_path / "rats"
    folder.mkdir()
    for seed in range(6):
        write_edf_session(folder, seed)
    features = {"fs_hz": FS_HZ, "epoch_s": 4.0, "window_s": 2.0, "hop_s": 0.5, "max_hz": 50.0}
    epochs = {"channels": ["EEG", "EMG"], "stages": "rodent", "margin_s": None, "features": features}
    model, bundle = train({"kind": "edf_folder", "root": str(folder)}, epochs, tmp_path)
    assert model.test_metrics()["test/macro_f1"] > 0.85
    assert [row["recording"] for row in model.results()][-1] == "majority stage"
    name = model.test_recordings[0]
    summary = predict(bundle, folder / f"{name}.edf", tmp_path / "out", reference="beside")
    assert summary.exit_code == 0
    rows = (tmp_path / "out" / name / "hypnogram.csv").read_text().splitlines()
    assert rows[0] == "onset_s,duration_s,stage,p_Wake,p_NREM,p_REM"
    assert rows[2].startswith("4,4,")
    assert len(rows) == 1 + 240
    assert "epochs of 4 s" in (tmp_path / "out" / name / "report.html").read_text()


def test_lfp_sessions_through_the_spectrogram_stage(tmp_path):
    prepared = tmp_path / "prepared"
    for rat in range(5):
        session = simulate_session(
            tmp_path / "raw", name=f"rat{rat}", minutes=10.0, shanks=(0,), n_channels=2, fs_hz=250.0, seed=rat
        )
        done = spectrograms_of(session.folder, tmp_path / "spectra" / f"rat{rat}")
        params = dict.fromkeys(("channels", "margin_s", "stage_coding", "text_epoch_s"))
        params |= {"epoch_s": 4.0, "species": "rodent", "min_hz": 0.5, "max_hz": 30.0}
        inputs = {"spectrograms": done, "hypnogram": tmp_path / "raw" / f"rat{rat}_hypnogram.csv"}
        ensure(LFP_EPOCHS, inputs, params, label=f"rat{rat}", target=prepared / f"rat{rat}")
    epochs = {
        "channels": ["0", "1"],
        "stages": "rodent",
        "features": {"kind": "bandpower", "epoch_s": 4.0, "window_s": 2.0},
    }
    model, bundle = train({"kind": "prepared", "root": str(prepared)}, epochs, tmp_path, max_epochs=12)
    assert model.test_metrics()["test/macro_f1"] > 0.85
    name = model.test_recordings[0]
    summary = predict(bundle, prepared / name, tmp_path / "out", kind="prepared", reference="beside")
    assert summary.exit_code == 0, summary.failures
    assert "agreement" in "\n".join(summary.values[name])
    raw = tmp_path / "raw" / f"{name}.rec"
    scored = predict_lfp(bundle, raw, tmp_path / "states")
    assert scored.exit_code == 0, scored.failures
    (folder,) = (tmp_path / "states" / "states").glob(f"{name}*")
    assert (folder / "hypnogram.csv").read_text() == (tmp_path / "out" / name / "hypnogram.csv").read_text()


def spectrograms_of(session, out):
    params = SpectrogramParams(str(session), str(out), preset="sleep", workers=1, band_powers=False)
    assert params.run().exit_code == 0
    return next(path.parent for path in out.rglob("*.h5"))
