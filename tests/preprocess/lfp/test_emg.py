"""What distant channels share at high frequency rises with muscle activity, at any rate that can see it."""

import numpy as np
import pytest

from src.preprocess.lfp.emg import HighFrequencyCorrelation
from src.recordings.extracellular.reader import open_recording


def recording(path, fs_hz, n_channels=4, seconds=20, gap=False):
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((int(seconds * fs_hz), n_channels)).astype(np.float32)
    muscle = 3 * rng.standard_normal((len(signal), 1))
    muscle[: len(signal) // 2] = 0
    signal += muscle.astype(np.float32)
    if gap:
        signal[: int(fs_hz), 0] = np.nan
    np.savez(path, traces=signal, fs=fs_hz)
    return open_recording(path)


@pytest.mark.parametrize("fs_hz", [1000.0, 1250.0, 20_000.0])
def test_it_rises_with_what_all_channels_share(tmp_path, fs_hz):
    source = recording(tmp_path / "a.npz", fs_hz, gap=True)
    muscle = HighFrequencyCorrelation.of(source)
    assert muscle is not None
    assert sum(map(len, muscle.listen(source.blocks(777, scaled=False)))) == source.n_samples
    muscle.save(tmp_path / "emg.npz")
    found = np.load(tmp_path / "emg.npz")
    quiet, active = found["emg"][1:9], found["emg"][11:]
    assert np.abs(quiet.mean()) < 0.1
    assert active.min() > 0.7
    np.testing.assert_allclose(found["times"], np.arange(20) + 0.25, rtol=0.01)


def test_where_it_cannot_be_seen(tmp_path):
    assert HighFrequencyCorrelation.of(recording(tmp_path / "a.npz", 500.0)) is None
    assert HighFrequencyCorrelation.of(recording(tmp_path / "b.npz", 2000.0, n_channels=1)) is None
