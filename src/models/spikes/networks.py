"""The networks of the coursework: a detector of spike onsets and a classifier of waveforms."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from src.preprocess.spikes.waveforms import cut_windows

PIECE = 1 << 15  # samples per call of a detector: what fits into the processor's cache


class SpikeDetector(nn.Module):
    """Convolutions that answer ``(batch, 1, time)`` with onset logits ``(batch, time)``.

    The defaults are the coursework's network: it sees 11 samples. Larger dilations let it see a whole spike.

    Parameters
    ----------
    channels, taps, dilations
        One entry per layer, each followed by a ReLU; padding keeps the length.
    """

    scale: Tensor

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        taps: Sequence[int] = (5, 5, 3),
        dilations: Sequence[int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))  # units of the recording per unit of network input
        layers: list[nn.Module] = []
        before = 1
        for width, size, dilation in zip(channels, taps, dilations, strict=True):
            layers += [nn.Conv1d(before, width, size, padding=size // 2 * dilation, dilation=dilation), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv1d(before, 1, 1))
        self.receptive_field = 1 + sum((size - 1) * dilation for size, dilation in zip(taps, dilations, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of "a spike starts at this sample"."""
        logits: Tensor = self.layers(x / self.scale)[:, 0]
        return logits

    @torch.no_grad()
    def onset_probability(self, trace: np.ndarray, *, piece: int = PIECE) -> np.ndarray:
        """Probability ``(time,)`` that a spike starts at each sample of a conditioned trace.

        One pass, in pieces that overlap by the receptive field: the result is that of one call on the whole trace, and
        that of a window of 120 samples around each sample.
        """
        reach = self.receptive_field // 2
        out = np.empty(len(trace), np.float32)
        for start in range(0, len(trace), piece):
            stop, first = min(start + piece, len(trace)), max(start - reach, 0)
            samples = torch.from_numpy(np.ascontiguousarray(trace[first : stop + reach], np.float32))
            probability = torch.sigmoid(self(samples[None, None].to(self.scale)).float())[0]
            out[start:stop] = probability[start - first : stop - first].cpu().numpy()
        return out


class SpikeClassifier(nn.Module):
    """The coursework's classifier: waveforms ``(batch, 1, window)`` to logits ``(batch, neuron)``.

    Parameters
    ----------
    neurons
        Number of neurons.
    window, onset
        Samples of a waveform, and those ahead of its onset.
    """

    scale: Tensor

    def __init__(self, neurons: int, window: int = 64, onset: int = 20) -> None:
        super().__init__()
        self.neurons, self.window, self.onset = neurons, window, onset
        self.register_buffer("scale", torch.ones(()))
        self.layers = nn.Sequential(
            nn.Conv1d(1, 32, 5),
            nn.ReLU(),
            nn.BatchNorm1d(32),
            nn.Conv1d(32, 64, 5),
            nn.ReLU(),
            nn.BatchNorm1d(64),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(64, neurons),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the neurons."""
        logits: Tensor = self.layers(x / self.scale)
        return logits

    @torch.no_grad()
    def neuron_probability(self, bandpassed: np.ndarray, onsets: np.ndarray) -> np.ndarray:
        """``(spike, neuron)`` probabilities of spikes at the given onsets of a band-passed trace."""
        if len(onsets) == 0:
            return np.zeros((0, self.neurons), np.float32)
        windows = cut_windows(bandpassed.astype(np.float32), onsets, self.onset, self.window - self.onset)
        batches = torch.from_numpy(np.ascontiguousarray(windows))[:, None].to(self.scale).split(1024)
        return torch.cat([torch.softmax(self(batch).float(), dim=1) for batch in batches]).cpu().numpy()
