"""One labelled recording and the backgrounds of its targets, as endless training traces and held-out tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from src.datamodules.spike_examples import Background, EpochSteps, TraceBatches, WaveformBatches
from src.datamodules.splits import PARTS, Part, Split, split_blocks
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.matched_filter import mean_template
from src.preprocess.spikes.noise import Spectrum
from src.preprocess.spikes.prepare import (
    BACKGROUND,
    CONDITIONING,
    LOOKALIKE_SET,
    LabelledRecording,
    find_recording,
    load_labelled,
    load_trace,
)
from src.preprocess.spikes.waveforms import conditioned_waveforms
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput, Origin, SignalSpec
from src.simulate.spike_synthesis import Grafting, Source, grafted, overlaid
from src.storage.step import ensure

GUARD_SAMPLES = 500
"""Gap between the blocks of the labelled recording: wider than a waveform and any window."""


class HeldOut(NamedTuple):
    """A labelled stretch that nothing was trained on, in the noise of a target.

    ``linear`` is the band-passed trace. Where the noise is a stretch of the target itself, ``alone`` is
    that stretch, and ``suspects`` where known neurons probably fire in it: of what is found there, the
    labels say nothing.
    """

    name: str
    expert: int
    linear: np.ndarray
    onsets: np.ndarray
    units: np.ndarray
    alone: np.ndarray | None
    suspect_onsets: np.ndarray
    suspect_units: np.ndarray

    @property
    def train(self) -> SpikeTrain:
        """The labelled spikes."""
        return SpikeTrain(self.onsets, self.units)

    @property
    def suspects(self) -> SpikeTrain:
        """Spikes that the stretch of the target probably holds."""
        return SpikeTrain(self.suspect_onsets, self.suspect_units)


class SpikeData(pl.LightningDataModule):
    """Labelled recording → waveforms; targets → backgrounds; both → batches of synthetic traces or waveforms.

    The labelled recording is split by time before anything is fitted or synthesised: waveforms come
    from the first block, thresholds from the second, test scores from the third.

    Parameters
    ----------
    data_dir
        Folder with ``<labelled>.mat`` and ``<target>.mat``; ``None`` makes the embedded look-alikes.
    labelled, targets
        Names of the recordings. Each target gets a network of its own. The labelled recording itself
        may be the one target: then nothing is matched to any other recording.
    key, fs_hz, n_units
        Variable that holds the trace, its rate, and the number of neurons.
    conditioning
        Arguments of :class:`~src.preprocess.spikes.conditioning.Conditioning` but the rate;
        ``matched_filter: true`` fills in the mean template.
    grafting
        Arguments of :class:`~src.simulate.spike_synthesis.Grafting`.
    examples
        For a detector ``windows`` per batch, labelled samples ``window`` of each, and whether they have
        real ``context`` on both sides; for a classifier ``samples`` of the trace a batch is cut from.
    steps_per_epoch
        Batches of an epoch; they go round the targets.
    split
        Shares ``val`` and ``test`` of the labelled recording.
    embedded
        ``duration_s`` and ``seed`` of the look-alikes.
    draws
        Independent noise draws per target and held-out block; every other one is twice as dense.
    """

    def __init__(
        self,
        data_dir: str | None,
        labelled: str,
        targets: Sequence[str],
        key: str,
        fs_hz: float,
        n_units: int,
        conditioning: dict[str, Any],
        grafting: dict[str, Any],
        examples: dict[str, Any],
        steps_per_epoch: int,
        split: dict[str, float],
        embedded: dict[str, Any],
        draws: int,
        cache_dir: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.data_dir, self.labelled, self.targets = data_dir, labelled, list(targets)
        self.key, self.fs_hz, self.n_units = key, fs_hz, n_units
        self.switches, self.grafting, self.examples = conditioning, Grafting(**grafting), examples
        self.steps_per_epoch, self.shares, self.embedded, self.draws = steps_per_epoch, split, embedded, draws
        self.cache_dir, self.seed = Path(cache_dir), seed
        self.classes = [f"neuron {u + 1}" for u in range(n_units)]
        self.backgrounds: list[Background] = []
        if not self.targets:
            raise BadInput("datamodule.targets", "is empty", "name at least one recording, the labelled one if need be")

    def prepare_data(self) -> None:
        """Make the look-alikes where no data are given, and measure every target; both are cached."""
        self.folder()
        for name in self.targets:
            self._measured(name)

    def inputs(self) -> dict[str, Path]:
        """The labelled recording and the targets by name: their content belongs to a run's identity."""
        return {name: find_recording(self.folder(), name) for name in (self.labelled, *self.targets)}

    def folder(self) -> Path:
        """Where the recordings are."""
        if self.data_dir is not None:
            return Path(self.data_dir)
        params = {"duration_s": float(self.embedded["duration_s"])}
        seed = int(self.embedded["seed"])
        return ensure(LOOKALIKE_SET, {}, params, label="embedded", cache=self.cache_dir, seed=seed).path

    def setup(self, stage: str) -> None:
        if self.backgrounds:
            return
        self.recording = self._load()
        self.parts = self._blocks(self.recording)
        waveforms = self.recording.waveforms(self.parts["train"], self.n_units)
        present = int((waveforms.counts > 0).sum())
        if present == 0:
            raise BadInput(self.recording.trace.source, "no spike lies in the training block", "use a longer recording")
        self.conditioning = self._chain(waveforms.templates, waveforms.onset)
        spikes = int(waveforms.counts.sum())
        rate_hz = spikes / (len(self.parts["train"]) / self.fs_hz)
        self.source = Source(waveforms, rate_hz, self.conditioning, self.grafting)
        self.seen = conditioned_waveforms(waveforms, self.conditioning)
        self.backgrounds = [self._measured(name) for name in self.targets]

    def _load(self) -> LabelledRecording:
        path = find_recording(self.folder(), self.labelled)
        return load_labelled(path, self._linear(), key=self.key, n_units=self.n_units)

    def _blocks(self, recording: LabelledRecording) -> dict[Part, range]:
        return split_blocks(len(recording.linear), gap=GUARD_SAMPLES, **self.shares)

    def _linear(self) -> Conditioning:
        switches = {k: v for k, v in self.switches.items() if k != "matched_filter"}
        return Conditioning(fs_hz=self.fs_hz, **switches).linear_only()

    def _chain(self, templates: np.ndarray, onset: int) -> Conditioning:
        switches = {k: v for k, v in self.switches.items() if k != "matched_filter"}
        chain = Conditioning(fs_hz=self.fs_hz, **switches)
        if not self.switches.get("matched_filter"):
            return chain
        present = templates[np.abs(templates).max(axis=1) > 0]
        template = tuple(float(v) for v in mean_template(present))
        return Conditioning(fs_hz=self.fs_hz, **switches, template=template, template_onset=onset)

    def _measured(self, name: str) -> Background:
        labelled = find_recording(self.folder(), self.labelled)
        inputs = {"labelled": labelled, "recording": find_recording(self.folder(), name)}
        fit_on = self._blocks(self._load())["train"] if not hasattr(self, "parts") else self.parts["train"]
        params = {
            "conditioning": self._linear().to_dict(),
            "fit_on": [fit_on.start, fit_on.stop],
            "key": self.key,
            "n_units": self.n_units,
        }
        artifact = ensure(BACKGROUND, inputs, params, label=name, cache=self.cache_dir)
        with np.load(artifact.path / "background.npz") as found:
            noise, suspects = (
                Spectrum(found["power"], self.fs_hz),
                SpikeTrain(found["suspects"], found["suspect_units"]),
            )
            measured = Background(name, noise, found["signature"], float(found["level"]))
        if artifact.manifest["facts"]["gaussian"]:
            return measured
        trace = load_trace(inputs["recording"], fs_hz=self.fs_hz, key=self.key)
        return replace(measured, linear=self._linear().linear(trace.centred), suspects=suspects)

    @property
    def split(self) -> Split:
        """The labelled recording by time; parts are named by their range of samples."""
        return Split(
            f"blocks(val={self.shares['val']}, test={self.shares['test']}, gap={GUARD_SAMPLES})",
            self.seed,
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
        """Waveforms of the training block, spectrum, signature and level of every target."""
        return {
            "templates": self.seen.templates,
            "modes": self.seen.modes,
            "noise_power": np.stack([b.noise.power for b in self.backgrounds]),
            "signature": np.stack([b.signature for b in self.backgrounds]),
            "scale": np.array([b.level for b in self.backgrounds]),
        }

    def held_out(self, part: Part) -> list[HeldOut]:
        """The block ``part`` of the labelled recording in the noise of each target, ``draws`` times each.

        Every other draw has the block's spikes twice, the second time later, because targets may fire
        faster than the labelled recording: what is tuned on sparse spikes alone misses dense ones.
        """
        block = self.parts[part]
        own = self.recording.background(block, self.seen)
        sparse = self.recording.linear[block.start : block.stop], self.recording.train.between(block.start, block.stop)
        made = []
        for expert, background in enumerate(self.backgrounds):
            for draw in range(self.draws):
                rng = np.random.default_rng((self.seed, 2, PARTS.index(part), expert, draw))
                linear, train = sparse if draw % 2 == 0 else overlaid(*sparse, self.grafting.dead_samples, rng)
                alone, suspects = None, SpikeTrain.empty()
                if background.linear is None:
                    present = own if draw % 2 == 0 else own.scaled(np.sqrt(2))
                    noisy = grafted(linear, present, background.noise, rng)
                else:
                    alone, suspects = background.stretch(len(linear), rng)
                    noisy = linear + alone
                made.append(
                    HeldOut(
                        background.name, expert, noisy, train.index, train.unit, alone, suspects.index, suspects.unit
                    )
                )
        return made

    def summary(self) -> dict[str, dict[str, Any]]:
        """Seconds and spikes of every block, in all and per neuron."""
        rows: dict[str, dict[str, Any]] = {}
        for part, block in self.parts.items():
            unit = self.recording.train.between(block.start, block.stop).unit
            counts = np.bincount(unit - 1, minlength=self.n_units)
            rows[part] = {
                "seconds": float(len(block) / self.fs_hz),
                "spikes": len(unit),
                **{c: int(n) for c, n in zip(self.classes, counts, strict=True)},
            }
        return rows

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        network: Any = trainer.lightning_module.network
        if "windows" in self.examples:
            dataset: Any = TraceBatches(
                self.source,
                self.backgrounds,
                windows=self.examples["windows"],
                window=self.examples["window"],
                context=network.receptive_field // 2 if self.examples["context"] else 0,
                curves=network.curves,
                half_width=network.label_half_width,
                offset=network.label_offset,
                seed=self.seed,
            )
        else:
            dataset = WaveformBatches(
                self.source,
                self.backgrounds,
                samples=self.examples["samples"],
                before=network.onset,
                after=network.window - network.onset,
                seed=self.seed,
            )
        sampler = EpochSteps(self.steps_per_epoch, trainer.global_rank, trainer.world_size)
        return DataLoader(dataset, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader[HeldOut]:
        return DataLoader(self.held_out("val"), batch_size=None, collate_fn=_as_is)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[HeldOut]:
        return DataLoader(self.held_out("test"), batch_size=None, collate_fn=_as_is)  # type: ignore[arg-type]


def _as_is(recording: HeldOut) -> HeldOut:
    return recording
