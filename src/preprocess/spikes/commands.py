"""What ``preprocess.py`` does for spikes: make the embedded recordings, make hybrids, condition recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.matched_filter import mean_template
from src.preprocess.spikes.parameters import SpikeLookalikesParams
from src.preprocess.spikes.prepare import CONDITIONING, LabelledRecording, load_labelled, load_trace
from src.recordings.extracellular.arrays import SUFFIXES
from src.reports.spike_conditioning import draw_conditioning
from src.signals import BadInput
from src.simulate.spike_hybrids import write_hybrids
from src.simulate.spikes import write_lookalikes
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder, distinct_names
from src.storage.step import ensure


def lookalikes(params: SpikeLookalikesParams) -> Summary:
    """The embedded D1–D6 as files, the truth of D2–D6 in ``truth/``."""
    job = Job("D1–D6", _lookalikes, (Path(params.output_dir), params.seed, params.duration_s))
    return run_batch([job], title="embedded recordings")


def _lookalikes(folder: Path, seed: int, duration_s: float) -> list[str]:
    with OutputFolder(folder).files() as part:
        write_lookalikes(part, seed, duration_s=duration_s, truth_dir=part / "truth")
    return [f"D1.mat … D6.mat in {folder}, the truth of D2–D6 in {folder / 'truth'}"]


def hybrids(
    input_dir: str, output_dir: str, seed: int, duration_s: float, workers: int = 1, skip: list[str] | None = None
) -> Summary:
    """``preprocess=spike_hybrids``: real D1 waveforms in a real background, both from the shared ``input_dir``."""
    job = Job("D1–D6", _hybrids, (Path(input_dir), Path(output_dir), seed, duration_s))
    return run_batch([job], title="hybrid recordings")


def _hybrids(shared: Path, folder: Path, seed: int, duration_s: float) -> list[str]:
    with OutputFolder(folder, (shared,)).files() as part:
        write_hybrids(shared, part, seed, duration_s=duration_s)
    return [f"D1.mat … D6.mat in {folder}, the truth of D2–D6 in {folder / 'truth'}"]


def condition(
    input_dir: str,
    output_dir: str,
    workers: int,
    seed: int,
    skip: list[str],
    key: str,
    fs_hz: float,
    conditioning: dict[str, Any],
    template_from: str | None,
    n_units: int,
    figures: bool,
) -> Summary:
    """``preprocess=spike_conditioning``: every recording of a folder through the chain, with a figure of each step.

    Parameters
    ----------
    input_dir
        A recording, or a folder of them.
    skip
        Names of recordings to leave out.
    conditioning
        Arguments of :class:`Conditioning` but the rate and the template.
    template_from
        Labelled recording whose mean waveform becomes the matched filter; ``None`` for no matched filter.
    """
    chain = Conditioning(fs_hz=fs_hz, **conditioning)
    if template_from is not None:
        template, onset = _template(
            load_labelled(Path(template_from), chain.linear_only(), key=key, n_units=n_units), n_units
        )
        chain = Conditioning(fs_hz=fs_hz, **conditioning, template=template, template_onset=onset)
    output = OutputFolder(Path(output_dir), (Path(input_dir),))
    paths = [path for path in _recordings(Path(input_dir)) if path.stem not in skip]
    names = distinct_names((path.stem, path) for path in paths)
    jobs = [
        Job(name, _condition, (path, output, name, chain, key, figures))
        for name, path in zip(names, paths, strict=True)
    ]
    return run_batch(jobs, title="conditioning", workers=workers)


def _template(labelled: LabelledRecording, n_units: int) -> tuple[tuple[float, ...], int]:
    model = labelled.waveforms(range(len(labelled.flat)), n_units)
    return tuple(float(v) for v in mean_template(model.templates[model.counts > 0])), model.onset


def _recordings(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = sorted(p for p in source.iterdir() if p.suffix in SUFFIXES) if source.is_dir() else []
    if not found:
        raise BadInput(source, "holds no recording", f"expected {', '.join(SUFFIXES)} files")
    return found


def _condition(path: Path, output: OutputFolder, name: str, chain: Conditioning, key: str, figures: bool) -> list[str]:
    params = {"conditioning": chain.to_dict(), "key": key}
    made = ensure(CONDITIONING, {"recording": path}, params, label=name, target=output.path(name))
    if figures:
        trace = load_trace(path, fs_hz=chain.fs_hz, key=key)
        with output.files() as part:
            steps = _steps(chain, trace.centred)
            draw_conditioning(part / f"{name}.png", title=name, steps=steps, fs_hz=chain.fs_hz)
    return [f"{made.path / 'conditioned.npy'}" + (" (as before)" if made.reused else "")]


def _steps(chain: Conditioning, centred: np.ndarray) -> dict[str, np.ndarray]:
    linear = chain.linear(centred)
    steps = {"median\nremoved": centred, "band-pass": linear}
    if chain.denoising:
        without = Conditioning.from_dict(chain.to_dict() | {"template": [], "template_onset": 0})
        steps["wavelet\ndenoising"] = without.enhance(linear, chain.calibrate(centred), len(centred))
    if chain.template:
        steps["matched\nfilter"] = chain.enhance(linear, chain.calibrate(centred), len(centred))
    return steps
