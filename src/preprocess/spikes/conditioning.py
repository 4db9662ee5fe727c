"""The chain that every trace goes through before a network sees it, in training and in inference alike.

Median removal and a zero-phase band-pass are linear; wavelet denoising and the matched filter follow
where they are switched on. Amplitude is kept throughout: nothing is normalised per window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pywt

from src.preprocess.spikes.filters import bandpass, matched_filter, robust_sigma
from src.preprocess.spikes.parameters import ConditioningParams, SpikeConditioningParams
from src.preprocess.spikes.trace import load_trace
from src.recordings.extracellular.arrays import SUFFIXES
from src.signals import BadInput, PlainRecord, SourceOptions
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder
from src.storage.step import CachedStep, ensure


@dataclass
class Conditioning(ConditioningParams, PlainRecord):
    """The chain for one sampling rate.

    Attributes
    ----------
    fs_hz
        Sampling rate.
    template, template_onset
        Template of the matched filter as plain numbers, and the column of its onset; empty leaves it out.
    """

    fs_hz: float = 25_000.0
    template: tuple[float, ...] = field(default=())
    template_onset: int = 0

    def __post_init__(self) -> None:
        if self.wavelet is not None and self.wavelet not in pywt.wavelist(kind="discrete"):
            raise BadInput("wavelet", f"'{self.wavelet}' is unknown", "try sym4 or db4")
        if self.rule not in ("soft", "hard"):
            raise BadInput("rule", f"'{self.rule}' is unknown", "choose soft or hard")
        if not 1 <= self.finest <= self.level:
            raise BadInput("finest", f"{self.finest} of {self.level} levels", "threshold between 1 and all levels")
        if self.scale < 0:
            raise BadInput("scale", f"{self.scale} is negative", "give 0 or more")

    def bandpassed(self, trace: np.ndarray) -> np.ndarray:
        """The band-pass alone: what spikes and noise may go through separately before they are added."""
        return bandpass(np.asarray(trace, np.float32), self.fs_hz, self.low_hz, self.high_hz, self.order)

    def bandpass_only(self) -> "Conditioning":
        """The same chain without the steps that change shapes: what a classifier reads."""
        return replace(self, wavelet=None, template=(), template_onset=0)

    def apply(self, centred: np.ndarray) -> np.ndarray:
        """The whole chain on a trace ``(time,)`` that is centred and free of NaN."""
        return self.steps(centred)[-1][1]

    def steps(self, centred: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The trace after each step of the chain, by the step's name."""
        done = [("band-pass", self.bandpassed(centred))]
        if self.wavelet is not None:
            done.append(("wavelet\ndenoising", self.denoised(done[-1][1])))
        if self.template:
            template = np.array(self.template, np.float32)
            done.append(("matched\nfilter", matched_filter(done[-1][1], template, self.template_onset)))
        return [(name, trace.astype(np.float32, copy=False)) for name, trace in done]

    def denoised(self, trace: np.ndarray) -> np.ndarray:
        """A trace ``(time,)`` whose finest detail coefficients are shrunk; amplitude is kept where a spike is.

        The stationary wavelet transform is shift-invariant. The threshold of each level is the universal one of Donoho
        and Johnstone, ``scale · sigma · sqrt(2 ln N)``; sigma is the MAD of its coefficients, one estimate per level,
        which follows coloured noise. The trace is extended by reflection to a multiple of ``2 ** level`` beyond the
        reach of the transform.
        """
        if len(trace) < 2:
            raise BadInput("trace", f"{len(trace)} samples cannot be transformed", "give a longer recording")
        reach = (pywt.Wavelet(self.wavelet).dec_len - 1) * (2**self.level - 1)
        before = min(reach, len(trace) - 1)
        after = before + (-(len(trace) + 2 * before)) % 2**self.level
        extended = np.pad(trace, (before, after), mode="symmetric")
        coefficients = list(pywt.swt(extended, self.wavelet, level=self.level, trim_approx=True, norm=True))
        for level in range(-self.finest, 0):
            threshold = self.scale * robust_sigma(coefficients[level]) * np.sqrt(2 * np.log(len(trace)))
            if threshold > 0:
                coefficients[level] = pywt.threshold(coefficients[level], threshold, mode=self.rule)
        return pywt.iswt(coefficients, self.wavelet, norm=True)[before : before + len(trace)].astype(trace.dtype)


def _condition(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any] | None:
    conditioning = Conditioning.from_dict(params["conditioning"])
    trace = load_trace(inputs["recording"], fs_hz=conditioning.fs_hz, options=SourceOptions(key=params["key"]))
    np.save(out_dir / "conditioned.npy", conditioning.apply(trace.centred))
    np.save(out_dir / "usable.npy", trace.usable)
    return {
        "units": "a.u.",
        "axes": {"conditioned": ["time"], "usable": ["time"]},
        "fs_hz": conditioning.fs_hz,
        "unusable_share": trace.unusable_share,
    }


CONDITIONING = CachedStep("spike_conditioning", 1, _condition)


def condition_recordings(params: SpikeConditioningParams) -> Summary:
    """Condition every recording of a folder, and draw it before and after each step.

    Raises
    ------
    BadInput
        If there is no recording, or the chain is impossible.
    """
    from src.preprocess.spikes.waveforms import load_labelled

    chain = Conditioning(**vars(params.conditioning), fs_hz=params.fs_hz)
    if params.template_from is not None:
        labelled = load_labelled(
            Path(params.template_from), chain.bandpass_only(), options=SourceOptions(key=params.key)
        )
        chain = labelled.waveforms(range(len(labelled.detrended))).matched_chain(chain)
    source = Path(params.input_dir)
    output = OutputFolder(Path(params.output_dir), (source,))
    if params.figures:
        output.check()
    paths = [p for p in ([source] if source.is_file() else sorted(source.glob("*"))) if p.suffix in SUFFIXES]
    paths = [p for p in paths if p.stem not in params.skip]
    if not paths:
        raise BadInput(source, "holds no recording", f"expected {', '.join(SUFFIXES)} files")
    names = output.names((path.stem, path) for path in paths)
    jobs = [Job(n, _condition_file, (p, output, n, chain, params)) for n, p in zip(names, paths, strict=True)]
    return run_batch(jobs, title="conditioning", workers=params.workers)


def _condition_file(
    path: Path, output: OutputFolder, name: str, chain: Conditioning, params: SpikeConditioningParams
) -> list[str]:
    record = {"conditioning": chain.to_dict(), "key": params.key}
    made = ensure(CONDITIONING, {"recording": path}, record, label=name, target=output.path(name))
    if params.figures:
        from src.reports.spikes import draw_conditioning  # loads matplotlib

        trace = load_trace(path, fs_hz=chain.fs_hz, options=SourceOptions(key=params.key))
        steps = {"median\nremoved": trace.centred, **dict(chain.steps(trace.centred))}
        with output.files() as part:
            draw_conditioning(part / f"{name}.png", title=name, steps=steps, fs_hz=chain.fs_hz)
    return [f"{made.path / 'conditioned.npy'}" + (" (as before)" if made.reused else "")]
