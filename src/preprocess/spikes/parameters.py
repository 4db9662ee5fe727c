"""Parameters of the spike steps; see ``src/storage/parameters.py``."""

from dataclasses import dataclass, field

from src.storage.batch import Summary
from src.storage.parameters import PreprocessConfig


@dataclass
class ConditioningParams:
    """What a trace goes through before a network sees it; ``null`` leaves a step out."""

    low_hz: float | None = 20.0  # Hz; corner of the high-pass: drift goes, waveforms keep their shape
    high_hz: float | None = None  # Hz; corner of the low-pass
    order: int = 1  # of the Butterworth filter, which runs forwards and backwards
    wavelet: str | None = None  # sym4 or db4: stationary wavelet denoising
    level: int = 5  # depth of the wavelet transform
    finest: int = 3  # number of detail levels, from the finest, that are thresholded
    scale: float = 0.7  # factor on the universal threshold
    rule: str = "soft"  # soft or hard


@dataclass
class SpikeLookalikesParams(PreprocessConfig):
    """``preprocess=spike_lookalikes``: simulated D1.mat … D6.mat, the truth of D2–D6 in ``truth/``."""

    input_dir: str = ""  # not used: nothing is read
    seed: int = 0  # of every random number
    duration_s: float = 57.6  # seconds; length of each recording

    def run(self) -> Summary:
        from src.simulate.spikes import lookalikes

        return lookalikes(self.output_dir, self.seed, self.duration_s)


@dataclass
class SpikeHybridsParams(PreprocessConfig):
    """``preprocess=spike_hybrids``: real D1 waveforms in a real background, as D1.mat … D6.mat with their truth."""

    seed: int = 0  # of every random number
    duration_s: float = 57.6  # seconds; length of each recording

    def run(self) -> Summary:
        from src.simulate.spike_hybrids import hybrids

        return hybrids(self.input_dir, self.output_dir, self.seed, self.duration_s)


@dataclass
class SpikeConditioningParams(PreprocessConfig):
    """``preprocess=spike_conditioning``: every recording of a folder through the chain, with a figure of each step."""

    key: str = "d"  # variable that holds the trace
    fs_hz: float = 25_000.0  # Hz; sampling rate
    conditioning: ConditioningParams = field(default_factory=ConditioningParams)
    template_from: str | None = None  # labelled recording whose mean waveform becomes the matched filter
    figures: bool = True  # draw every step of each recording

    def run(self) -> Summary:
        from src.preprocess.spikes.conditioning import condition_recordings

        return condition_recordings(self)
