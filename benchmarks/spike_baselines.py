"""What the sorter is raced against: threshold and clusters, threshold and nearest template, template matching.

Every baseline gets what the bank gets: the waveforms of the labelled recording. Its one threshold is the one with the
best F1 on the very recording, which flatters it.
"""

import numpy as np
import scipy.signal

from src.models.spikes.scores import detection
from src.preprocess.spikes.filters import bandpass, matched_filter, mean_template, robust_sigma
from src.preprocess.spikes.waveforms import WaveformModel, cut_windows
from src.recordings.extracellular.spike_trains import SpikeTrain

BEFORE, AFTER = 20, 44
REFRACTORY = 25
LOW_HZ, HIGH_HZ = 150.0, 4000.0


def baselines(model: WaveformModel, bandpassed: np.ndarray, truth: SpikeTrain, fs_hz: float) -> dict[str, SpikeTrain]:
    """Spikes by every baseline; ``model`` holds waveforms behind the band-pass."""
    short = model.templates[:, model.onset - BEFORE : model.onset + AFTER]
    return {
        "threshold + PCA + mixture": _threshold(short, bandpassed, truth, fs_hz, cluster=True),
        "threshold + nearest template": _threshold(short, bandpassed, truth, fs_hz, cluster=False),
        "template matching": _template(short, bandpassed, truth),
    }


def _threshold(
    shapes: np.ndarray, bandpassed: np.ndarray, truth: SpikeTrain, fs_hz: float, *, cluster: bool
) -> SpikeTrain:
    """Peaks beyond a multiple of the MAD (Quian Quiroga et al. 2004), then clusters or the nearest template."""

    def narrow(rows: np.ndarray) -> np.ndarray:
        return bandpass(rows.astype(np.float64), fs_hz, LOW_HZ, HIGH_HZ, 2)

    filtered, pad = narrow(bandpassed), 200
    templates = narrow(np.pad(shapes, ((0, 0), (pad, pad))))
    delays = templates.argmax(axis=1) - pad - BEFORE
    delay = int(np.median(delays))
    length = shapes.shape[1]
    aligned = np.stack([t[pad + d - delay : pad + d - delay + length] for t, d in zip(templates, delays, strict=True)])
    peaks, found = scipy.signal.find_peaks(filtered, height=1.5 * robust_sigma(filtered), distance=REFRACTORY)
    onsets = _best(peaks - delay, found["peak_heights"], truth)
    windows = cut_windows(filtered, onsets, BEFORE, length - BEFORE)
    names = _nearest(windows, aligned)
    if cluster:
        from sklearn.decomposition import PCA
        from sklearn.mixture import GaussianMixture

        features = PCA(3, random_state=0).fit_transform(windows)
        mixture = GaussianMixture(len(shapes), n_init=3, random_state=0, reg_covar=1e-3)
        label = mixture.fit(features).predict(features)
        means = np.stack([windows[label == k].mean(axis=0) for k in range(len(shapes))])
        names = _nearest(means, aligned)[label]
    return SpikeTrain.sorted(np.clip(onsets + delay - delays[names], 0, None), names + 1)


def _template(shapes: np.ndarray, bandpassed: np.ndarray, truth: SpikeTrain) -> SpikeTrain:
    output = matched_filter(bandpassed, mean_template(shapes), BEFORE)
    peaks, found = scipy.signal.find_peaks(output, height=robust_sigma(output), distance=REFRACTORY)
    onsets = _best(peaks, found["peak_heights"], truth)
    windows = cut_windows(bandpassed, onsets, BEFORE, shapes.shape[1] - BEFORE)
    return SpikeTrain.sorted(onsets, _nearest(windows, shapes) + 1)


def _best(onsets: np.ndarray, height: np.ndarray, truth: SpikeTrain) -> np.ndarray:
    def score(limit: float) -> float:
        return detection(truth.index, onsets[height >= limit], 50).f1

    best = max(np.quantile(height, np.linspace(0, 0.98, 50)), key=score)
    return np.asarray(np.clip(onsets[height >= best], 0, None))


def _nearest(windows: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    return np.asarray(((shapes**2).sum(axis=1) - 2 * windows @ shapes.T).argmin(axis=1))
