"""One labelled recording and the backgrounds of its targets, as endless training examples and held-out tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from src.datamodules.loaders import PartLoaders, as_is, evaluation_loader, overfitting
from src.datamodules.splits import PARTS, Part, Split, check_split, split_blocks
from src.preprocess.spikes.conditioning import CONDITIONING, Conditioning
from src.preprocess.spikes.filters import Spectrum
from src.preprocess.spikes.sorting import BankSorter
from src.preprocess.spikes.trace import find_recording, load_trace
from src.preprocess.spikes.waveforms import cut_windows, load_labelled
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput, Origin, SignalSpec, SourceOptions, require_range
from src.simulate.spikes import LOOKALIKE_SET
from src.storage.step import ensure


@dataclass(frozen=True)
class NoisyBlock:
    """A stretch of the labelled recording, and the noise it lacks to be like each target.

    Attributes
    ----------
    bandpassed, train
        ``(time,)`` band-passed trace and its spikes.
    own
        Spectrum of its own noise.
    targets
        Spectrum of each target's background, by name.
    """

    bandpassed: np.ndarray
    train: SpikeTrain
    own: Spectrum
    targets: Mapping[str, Spectrum]

    def draw(
        self, target: str, n_samples: int, rng: np.random.Generator, *, dense: bool
    ) -> tuple[np.ndarray, SpikeTrain]:
        """A stretch ``(n_samples,)`` in the noise of a target, and its spikes.

        Noise is added where the target's spectrum exceeds that of the stretch; the sum has the target's.

        Parameters
        ----------
        dense
            Add another stretch on top: targets fire up to twice as fast as the labelled recording.
        """
        trace, index, unit, length = np.zeros(n_samples), [], [], len(self.bandpassed)
        for _ in range(1 + dense):
            start = int(rng.integers(0, length))  # past its end the block goes on at its start
            trace += self.bandpassed[(start + np.arange(n_samples)) % length]
            for turn in range(-1, n_samples // length + 1):
                spikes = self.train.index + turn * length - start
                inside = (spikes >= 0) & (spikes < n_samples)
                index.append(spikes[inside])
                unit.append(self.train.unit[inside])
        noise = self.targets[target]
        present = np.interp(noise.frequencies, self.own.frequencies, self.own.power) * (1 + dense)
        missing = Spectrum(np.maximum(noise.power - present, 0), noise.fs_hz)
        noisy = (trace + missing.synthesise(n_samples, rng)).astype(np.float32)
        return noisy, SpikeTrain.sorted(np.concatenate(index), np.concatenate(unit))


@dataclass(eq=False)
class NoisyBatches(Dataset[tuple[Tensor, Tensor]]):
    """So many batches, drawn anew whenever they are asked for; they go round the targets, every other round is dense.

    Attributes
    ----------
    block
        What they are drawn from.
    batches
        How many there are.
    seed
        Of all draws, together with torch's global generator.
    same
        The first batch is the same one whenever it is asked for, and so is each other.
    """

    block: NoisyBlock
    batches: int
    seed: int = 0
    same: bool = False

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in vars(self).items() if k in ("batches", "windows", "window", "samples")}
        require_range("datamodule.examples", 1, **sizes)

    def __len__(self) -> int:
        return self.batches

    def statistics(self) -> dict[str, np.ndarray]:
        """Standard deviation of the training block."""
        return {"scale": np.asarray(self.block.bandpassed.std(), np.float32)}

    def drawn(self, batch: int, n_samples: int) -> tuple[np.ndarray, SpikeTrain, np.random.Generator]:
        """A noisy stretch, its spikes, and the generator for what else is random."""
        if not 0 <= batch < self.batches:
            raise IndexError(batch)
        fresh = 0 if self.same else int(torch.randint(2**62, ()))
        rng = np.random.default_rng((self.seed, fresh, batch))
        names = list(self.block.targets)
        turn, place = divmod(batch, len(names))
        return *self.block.draw(names[place], n_samples, rng, dense=turn % 2 == 1), rng


@dataclass(eq=False)
class TraceWindows(NoisyBatches):
    """Batches of consecutive windows ``(window, 1, samples)`` with onset labels ``(window, samples)``.

    Attributes
    ----------
    after
        What follows the band-pass before the detector.
    windows, window
        Windows per batch and samples of each.
    half_width
        A label covers so many samples on either side of an onset.
    """

    after: Conditioning = field(default_factory=lambda: Conditioning(low_hz=None))
    windows: int = 64
    window: int = 120
    half_width: int = 3

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        noisy, train, _ = self.drawn(batch, self.windows * self.window)
        shape = (self.windows, self.window)
        samples = torch.from_numpy(self.after.apply(noisy).reshape(shape))[:, None]
        return samples, torch.from_numpy(onset_labels(train.index, len(noisy), self.half_width).reshape(shape))


@dataclass(eq=False)
class SpikeWindows(NoisyBatches):
    """Batches of the waveforms ``(spike, 1, window)`` in a stretch, and their neurons ``(spike,)`` from 0.

    Attributes
    ----------
    samples
        Length of the stretch.
    window, onset
        Samples of a waveform, and those ahead of its onset.
    jitter
        Standard deviation of the onset in samples: a detector does not find it exactly.
    """

    samples: int = 50_000
    window: int = 64
    onset: int = 20
    jitter: float = 1.2

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        noisy, train, rng = self.drawn(batch, self.samples)
        late = np.rint(self.jitter * rng.standard_normal(len(train))).astype(np.int64)
        windows = cut_windows(noisy, train.index + late, self.onset, self.window - self.onset)
        return torch.from_numpy(np.ascontiguousarray(windows))[:, None], torch.from_numpy(train.unit - 1)


def onset_labels(index: np.ndarray, n_samples: int, half_width: int) -> np.ndarray:
    """``(time,)`` float32: 1 within ``half_width`` samples of an onset."""
    labels = np.zeros(n_samples, np.float32)
    for shift in range(-half_width, half_width + 1):
        at = index + shift
        labels[at[(at >= 0) & (at < n_samples)]] = 1
    return labels


GUARD_SAMPLES = 500  # gap between the blocks of the labelled recording: wider than a waveform and any window


class HeldOut(NamedTuple):
    """A labelled stretch that nothing was trained on, in the noise of a target.

    Attributes
    ----------
    bandpassed, conditioned
        ``(time,)`` what a classifier and what a detector reads.
    onsets, units
        Its spikes.
    level
        Standard deviation of the target's noise.
    """

    name: str
    bandpassed: np.ndarray
    conditioned: np.ndarray
    onsets: np.ndarray
    units: np.ndarray
    level: float

    @property
    def train(self) -> SpikeTrain:
        """Its spikes; Lightning cannot move a tuple to a device that holds a frozen dataclass."""
        return SpikeTrain(self.onsets, self.units)


@dataclass(frozen=True)
class LabelledFormat:
    """How the recordings are stored, and how long the embedded look-alikes are.

    Attributes
    ----------
    key, fs_hz, n_units
        Variable that holds the trace, its rate, and the number of neurons.
    duration_s, seed
        Of the look-alikes.
    """

    key: str = "d"
    fs_hz: float = 25_000.0
    n_units: int = 5
    duration_s: float = 57.6
    seed: int = 0

    def __post_init__(self) -> None:
        require_range("datamodule.recording", 1, n_units=self.n_units, fs_hz=self.fs_hz, duration_s=self.duration_s)


class SpikeData(PartLoaders):
    """A labelled recording, split by time before anything is fitted, in the noise of each target.

    Parameters
    ----------
    data_dir
        Folder with ``<labelled>.mat`` and ``<target>.mat``; ``None`` makes the embedded look-alikes.
    labelled, targets
        Names of the recordings. The labelled recording itself may be the one target.
    recording
        Arguments of :class:`LabelledFormat`.
    conditioning
        Arguments of :class:`~src.preprocess.spikes.conditioning.Conditioning` but the rate;
        ``matched_filter: true`` fills in the mean template.
    examples
        Arguments of :class:`~src.datamodules.spikes.TraceWindows` (``windows`` among them) or of
        :class:`~src.datamodules.spikes.SpikeWindows`: ``batches`` of an epoch and their size.
    split
        Shares ``val`` and ``test`` of the labelled recording.
    execution
        Arguments of :class:`~src.datamodules.loaders.Execution`.
    """

    def __init__(
        self,
        data_dir: str | None,
        labelled: str,
        targets: Sequence[str],
        recording: dict[str, Any],
        conditioning: dict[str, Any],
        examples: dict[str, Any],
        split: dict[str, Any],
        execution: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(execution=execution)
        check_split("blocks", **{"gap_epochs": 0, **split})
        self.data_dir, self.labelled = data_dir, labelled
        self.targets = [targets] if isinstance(targets, str) else list(targets)
        self.format, self.switches = LabelledFormat(**recording), conditioning
        self.options = SourceOptions(key=self.format.key)
        self.fs_hz, self.n_units = self.format.fs_hz, self.format.n_units
        switches = {name: value for name, value in conditioning.items() if name != "matched_filter"}
        self.conditioning = Conditioning(fs_hz=self.fs_hz, **switches)
        self.examples, self.shares = examples, split
        self.kind = TraceWindows if "windows" in examples else SpikeWindows
        self.kind(cast(Any, None), **examples)  # refuses what they do not take
        self.held_out_batch, self.collate = None, as_is
        self.classes = [f"neuron {u + 1}" for u in range(self.n_units)]
        self.blocks: dict[Part, NoisyBlock] = {}
        if not self.targets:
            raise BadInput("datamodule.targets", "is empty", "name at least one recording, the labelled one if need be")

    def prepare_data(self) -> None:
        """Make the look-alikes where no data are given."""
        self.folder()

    def inputs(self) -> dict[str, Path]:
        """The labelled recording and the targets by name: their content belongs to a run's identity."""
        return {name: find_recording(self.folder(), name) for name in (self.labelled, *self.targets)}

    def folder(self) -> Path:
        """Where the recordings are."""
        if self.data_dir is not None:
            return Path(self.data_dir)
        params, seed = {"duration_s": float(self.format.duration_s)}, self.format.seed
        cache = Path(self.execution.cache_dir)
        return ensure(LOOKALIKE_SET, {}, params, label="embedded", cache=cache, seed=seed).path

    def setup(self, stage: str) -> None:
        if self.blocks:
            return
        chain = self.conditioning.bandpass_only()
        path = find_recording(self.folder(), self.labelled)
        recording = load_labelled(path, chain, options=self.options, n_units=self.n_units)
        self.parts = split_blocks(len(recording.bandpassed), gap=GUARD_SAMPLES, **self.shares)
        if not len(recording.train.between(self.parts["train"].start, self.parts["train"].stop)):
            raise BadInput(path, "no spike lies in the training block", "use a longer recording")
        if self.switches.get("matched_filter"):
            self.conditioning = recording.waveforms(self.parts["train"], self.n_units).matched_chain(self.conditioning)
        sorter = BankSorter.from_labelled(recording, chain, self.parts["train"])
        noise = {}
        for name in self.targets:
            trace = load_trace(find_recording(self.folder(), name), fs_hz=self.fs_hz, options=self.options)
            noise[name] = sorter.measure(chain.bandpassed(trace.centred), trace.usable)
        for part, span in self.parts.items():
            train = recording.train.between(span.start, span.stop)
            bandpassed = recording.bandpassed[span.start : span.stop]
            own = sorter.measure(bandpassed, recording.trace.usable[span.start : span.stop])
            self.blocks[part] = NoisyBlock(bandpassed, train, own, noise)

    @property
    def after(self) -> Conditioning:
        """What follows the band-pass in the detector's chain."""
        return replace(self.conditioning, low_hz=None, high_hz=None)

    @property
    def split(self) -> Split:
        """The labelled recording by time; parts are named by their range of samples."""
        return Split(
            f"blocks(val={self.shares['val']}, test={self.shares['test']}, gap={GUARD_SAMPLES})",
            self.execution.seed,
            {f"{self.labelled}[{r.start}:{r.stop}]": part for part, r in self.parts.items()},
        )

    @property
    def signal(self) -> SignalSpec:
        """One band-passed channel in the labelled recording's units, of any length."""
        return SignalSpec(("extracellular",), self.fs_hz, 1 / self.fs_hz, "a.u.", ("channel", "time"), (1, None))

    def steps(self) -> list[dict[str, Any]]:
        """The chain that a recording goes through before the network."""
        return [CONDITIONING.describe(self.conditioning.to_dict())]

    def origin(self) -> Origin:
        """What was trained on."""
        cohort = "embedded look-alikes" if self.data_dir is None else Path(self.data_dir).name
        return Origin(self.data_dir is not None, (cohort,), 1, len(self.parts["train"]) / self.fs_hz / 3600)

    def statistics(self) -> dict[str, np.ndarray]:
        """Standard deviation of the training block."""
        return SpikeWindows(self.blocks["train"], 1).statistics()

    def held_out(self, part: Part) -> list[HeldOut]:
        """The block ``part`` of the labelled recording in the noise of each target, as it is and twice as dense."""
        block, made = self.blocks[part], []
        for number, name in enumerate(self.targets):
            for dense in (False, True):
                rng = np.random.default_rng((self.execution.seed, 2, PARTS.index(part), number, int(dense)))
                noisy, train = block.draw(name, len(block.bandpassed), rng, dense=dense)
                made.append(
                    HeldOut(name, noisy, self.after.apply(noisy), train.index, train.unit, block.targets[name].sigma())
                )
        return made

    def _evaluation(self, part: Part) -> DataLoader[Any]:
        # A threshold needs all trials of its target, so every process evaluates everything.
        trials: Any = self.held_out(part)
        everything: Any = None if overfitting(self.trainer) else DistributedSampler(trials, 1, 0, shuffle=False)
        return DataLoader(trials, batch_size=None, sampler=everything, collate_fn=as_is)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Seconds and spikes of every block, in all and per neuron."""
        rows: dict[str, dict[str, Any]] = {}
        for part, block in self.blocks.items():
            counts = np.bincount(block.train.unit - 1, minlength=self.n_units).tolist()
            seconds = len(block.bandpassed) / self.fs_hz
            spikes = dict(zip(self.classes, counts, strict=True))
            rows[part] = {"seconds": float(seconds), "spikes": len(block.train), **spikes}
        return rows

    def require_share(self, processes: int) -> None:
        """Every process draws batches of its own."""

    def train_dataloader(self) -> DataLoader[Any]:
        given: dict[str, Any] = {**self.examples, **({"after": self.after} if self.kind is TraceWindows else {})}
        given["batches"] *= 1 if self.trainer is None else self.trainer.world_size
        seed, same = self.execution.seed, overfitting(self.trainer)
        return evaluation_loader(
            self.kind(self.blocks["train"], seed=seed, same=same, **given), None, trainer=self.trainer
        )
