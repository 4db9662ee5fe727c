"""The detectors and classifiers themselves: conditioned samples in physical units in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.preprocess.spikes.noise import Spectrum
from src.preprocess.spikes.signature import FEATURES
from src.preprocess.spikes.waveforms import (
    LONG_FFT,
    N_MODES,
    REACH,
    TEMPLATE_AFTER,
    TEMPLATE_BEFORE,
    SpikeRemover,
    WaveformModel,
)

NOISE_BINS = LONG_FFT // 2 + 1
TEMPLATE_SAMPLES = TEMPLATE_BEFORE + TEMPLATE_AFTER + 2 * REACH
TEMPLATE_ONSET = TEMPLATE_BEFORE + REACH


class TargetedNetwork(nn.Module):
    """What every spike network carries beside its weights: the references fitted for its targets.

    Attributes
    ----------
    scale
        ``(expert,)`` physical units per unit of network input.
    noise_power
        ``(expert, frequency)`` background spectrum of every target behind the band-pass, units² / Hz.
    signature
        ``(expert, feature)`` by which a recording finds its expert, see :mod:`src.preprocess.spikes.signature`.
    templates, modes
        ``(neuron, time)`` mean waveforms behind the band-pass and ``(neuron, mode, time)`` how they vary;
        the onset is column ``TEMPLATE_ONSET``.
    """

    scale: Tensor
    noise_power: Tensor
    signature: Tensor
    templates: Tensor
    modes: Tensor

    def __init__(self, experts: int, neurons: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(experts))
        self.register_buffer("noise_power", torch.zeros(experts, NOISE_BINS))
        self.register_buffer("signature", torch.zeros(experts, FEATURES))
        self.register_buffer("templates", torch.zeros(neurons, TEMPLATE_SAMPLES))
        self.register_buffer("modes", torch.zeros(neurons, N_MODES, TEMPLATE_SAMPLES))

    def waveforms(self) -> WaveformModel:
        """The references as the waveforms they were fitted as; neurons that never fired count as absent."""
        templates, modes = self.templates.double().numpy(), self.modes.double().numpy()
        return WaveformModel(templates, modes, TEMPLATE_ONSET, np.abs(templates).max(axis=1) > 0)

    def noise(self, expert: int, fs_hz: float) -> Spectrum:
        """Background spectrum of one target."""
        return Spectrum(self.noise_power[expert].double().numpy(), fs_hz)

    def remover(self, expert: int, fs_hz: float) -> SpikeRemover:
        """What takes known spikes off a band-passed trace of one target."""
        return SpikeRemover.for_noise(self.waveforms(), self.noise(expert, fs_hz))


class DetectorNetwork(TargetedNetwork):
    """A network that answers ``(batch, 1, time)`` with onset logits ``(batch, curve, time)``.

    Attributes
    ----------
    curves
        One per neuron, or one for all.
    receptive_field
        Samples that an output depends on.
    label_offset, label_half_width
        A spike is labelled ``label_offset`` samples after its onset, and ``label_half_width`` on either side.
    """

    curves: int
    receptive_field: int
    label_offset: int
    label_half_width: int


class ClassifierNetwork(TargetedNetwork):
    """A network that answers waveforms ``(batch, 1, window)`` with logits ``(batch, neuron + 1)``, the last for noise.

    Attributes
    ----------
    window, onset
        Samples of a waveform, and those ahead of its onset.
    """

    window: int
    onset: int


class DilatedTrunk(nn.Module):
    """Long first filters, then dilated residual convolutions: ``(batch, 1, time)`` to ``(batch, heads, time)``.

    The first layer is as long as a spike and starts out as whitened templates; the others see its
    outputs at the lags at which neighbouring spikes disturb each other.
    """

    def __init__(self, heads: int, channels: int, stem_taps: int, dilations: Sequence[int], prior: float) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, channels, stem_taps, padding=stem_taps // 2)
        self.blocks = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=d, dilation=d) for d in dilations)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.head = nn.Conv1d(channels, heads, 1)
        # Starting at the label's frequency spares the first hundred steps of learning that spikes are rare.
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, float(torch.logit(torch.tensor(prior))))

    def forward(self, x: Tensor) -> Tensor:
        # Channels last, the long filters as one matrix product: the same numbers in a third less time.
        reach = self.stem.kernel_size[0] // 2
        taps = F.pad(x[:, 0], (reach, reach)).unfold(-1, self.stem.kernel_size[0], 1)
        hidden = F.linear(taps, self.stem.weight[:, 0], self.stem.bias).permute(0, 2, 1)[:, :, None]
        for block in self.blocks:
            hidden = hidden + _convolve(block, F.relu(hidden))
        return _convolve(self.head, F.relu(_convolve(self.mix, F.relu(hidden))))[:, :, 0]


def _convolve(layer: nn.Module, hidden: Tensor) -> Tensor:
    """A one-dimensional convolution of ``(batch, channel, 1, time)``, whose memory runs along channels."""
    assert isinstance(layer, nn.Conv1d)
    padding, dilation = (0, int(layer.padding[0])), (1, layer.dilation[0])
    return F.conv2d(hidden, layer.weight[:, :, None], layer.bias, padding=padding, dilation=dilation)


class SpikeDetector(DetectorNetwork):
    """One trunk per target background; per-sample, per-neuron logits of "a spike starts ``label_offset`` samples ago".

    Parameters
    ----------
    experts
        Number of backgrounds the detector is made for.
    neurons
        Neurons told apart; every one has its own curve, so that coincident spikes stay two spikes.
    stem_taps, dilations
        Together they set the receptive field.
    label_offset
        Samples from the onset to the labelled sample, so that the receptive field covers the whole spike.
    """

    def __init__(
        self,
        experts: int,
        neurons: int,
        channels: int = 16,
        stem_taps: int = 65,
        dilations: Sequence[int] = (1, 2, 4, 8, 8, 4),
        label_offset: int = 14,
        label_half_width: int = 3,
    ) -> None:
        super().__init__(experts, neurons)
        if stem_taps % 2 == 0:
            raise ValueError(f"stem_taps must be odd, not {stem_taps}")
        self.curves, self.label_offset, self.label_half_width = neurons, label_offset, label_half_width
        self.receptive_field, self.stem_taps = stem_taps + 2 * sum(dilations), stem_taps
        self.trunks = nn.ModuleList(
            DilatedTrunk(neurons, channels, stem_taps, dilations, prior=0.003) for _ in range(experts)
        )

    def forward(self, x: Tensor, expert: int = 0) -> Tensor:
        """``(batch, 1, time)`` conditioned samples to ``(batch, unit, time)`` logits."""
        logits: Tensor = self.trunks[expert](x / self.scale[expert])
        return logits

    @torch.no_grad()
    def start_from_filters(self, expert: int, filters: Tensor) -> None:
        """Let the first filters of a trunk start as ``filters (filter, stem_taps)``, for input in units of ``scale``.

        Two copies of each are placed, one with a bias that only a spike overcomes.
        """
        trunk = self.trunks[expert]
        assert isinstance(trunk, DilatedTrunk)
        stem = trunk.stem
        assert stem.bias is not None
        for copy, bias in enumerate((0.0, -1.5)):
            rows = slice(copy * len(filters), min((copy + 1) * len(filters), stem.out_channels))
            count = max(rows.stop - rows.start, 0)
            stem.weight[rows, 0] = filters[:count]
            stem.bias[rows] = bias


class OriginalDetector(DetectorNetwork):
    """The coursework's detector: three short convolutions that see 11 samples, one curve for all units."""

    def __init__(self, experts: int, neurons: int, label_offset: int = 0, label_half_width: int = 3) -> None:
        super().__init__(experts, neurons)
        self.curves, self.label_offset, self.label_half_width = 1, label_offset, label_half_width
        self.receptive_field = 11
        layers: list[nn.Module] = []
        for before, after, taps in ((1, 16, 5), (16, 32, 5), (32, 64, 3)):
            layers += [nn.Conv1d(before, after, taps, padding=taps // 2), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Conv1d(64, 1, 1))

    def forward(self, x: Tensor, expert: int = 0) -> Tensor:
        """``(batch, 1, time)`` to ``(batch, 1, time)``; every background shares the weights."""
        logits: Tensor = self.network(x / self.scale[expert])
        return logits


class WaveformClassifier(ClassifierNetwork):
    """One small network per target background: a 64-sample waveform to logits of every neuron and of "noise".

    Two readings are joined: correlation with learned whole-window templates, which keeps timing, and
    convolutions with batch norm and global pooling, which forgives a few samples of it. Input is in
    physical units divided by one constant, so amplitude survives.
    """

    def __init__(
        self, experts: int, neurons: int, window: int = 64, onset: int = 20, channels: int = 24, hidden: int = 48
    ) -> None:
        super().__init__(experts, neurons)
        self.window, self.onset = window, onset
        self.trunks = nn.ModuleList(_WaveformTrunk(neurons + 1, window, channels, hidden) for _ in range(experts))

    def forward(self, x: Tensor, expert: int = 0) -> Tensor:
        """``(batch, 1, window)`` to ``(batch, neurons + 1)``; the last column is "noise"."""
        logits: Tensor = self.trunks[expert](x / self.scale[expert])
        return logits


class _WaveformTrunk(nn.Module):
    def __init__(self, outputs: int, window: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            nn.Conv1d(1, channels, 15),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 7),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
        )
        self.whole = nn.Conv1d(1, hidden, window)
        self.mix = nn.Sequential(nn.Linear(hidden + 2 * channels, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        local = self.local(x)
        joined = torch.cat((F.relu(self.whole(x)[..., 0]), local.mean(-1), local.amax(-1)), dim=1)
        logits: Tensor = self.mix(joined)
        return logits


class OriginalClassifier(ClassifierNetwork):
    """The coursework's classifier: two valid convolutions with batch norm, average pooling, dropout; no noise class.

    It has ``neurons`` outputs; the noise column that every classifier answers with is minus infinity.
    """

    def __init__(self, experts: int, neurons: int, window: int = 64, onset: int = 20) -> None:
        super().__init__(experts, neurons)
        self.window, self.onset = window, onset
        self.network = nn.Sequential(
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

    def forward(self, x: Tensor, expert: int = 0) -> Tensor:
        """``(batch, 1, window)`` to ``(batch, neurons + 1)``; every background shares the weights."""
        logits: Tensor = self.network(x / self.scale[expert])
        return F.pad(logits, (0, 1), value=-torch.inf)
