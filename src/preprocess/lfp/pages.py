"""What the figures of a shank show: spectrograms averaged to the columns of a page, and coherence as it was stored."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from src.preprocess.lfp.spectrogram_file import Spectrograms, open_spectrograms
from src.reports.figures import saved
from src.reports.lfp import DELTA_HZ, DPI, Page, draw_channel, draw_coherence, draw_overview, median_spectrum
from src.storage.progress import job_progress

COLUMNS = 1200  # points in time of a page: more than a page has pixels would be averaged by the eye
LOWEST_HZ = 0.5


def draw_shank(artifact: Path, out_dir: Path, *, title: str, suffix: str = "png") -> list[Path]:
    """Draw a page per channel and an overview of them: ``<label>_ch<id>.<suffix>``, ``<label>_overview.<suffix>``.

    ``artifact`` is a spectrogram file or the folder of a shank.
    """
    source = open_spectrograms(artifact)
    label = source.path.name.rpartition("_")[0]
    places = source.places(None)
    files, names, delta, ratio, spectra, page = [], [], [], [], [], None
    with job_progress(f"{title} figures", len(places) + 1) as advance:
        for page in pages(source, places):
            name = re.sub(r"[^\w.+-]", "_", page.channel)
            files.append(saved(draw_channel(page, title), out_dir / f"{label}_ch{name}.{suffix}", DPI))
            names.append(page.channel)
            delta.append(page.band(*DELTA_HZ))
            ratio.append(page.theta_ratio())
            spectra.append(median_spectrum(page.decibels))
            advance()
        if page is not None:
            overview = draw_overview(title, page, names, delta, ratio, spectra)
            files.append(saved(overview, out_dir / f"{label}_overview.{suffix}", DPI))
        advance()
    return files


def pages(source: Spectrograms, places: Sequence[int]) -> Iterator[Page]:
    """Every channel averaged in time to at most :data:`COLUMNS` columns, one channel in memory at a time."""
    n_columns = min(COLUMNS, len(source.times))
    edges = np.linspace(0, len(source.times), n_columns + 1).astype(int)
    centres = np.array([source.times[a:b].mean() for a, b in pairwise(edges)])
    shown = source.freqs >= min(LOWEST_HZ, source.freqs[-1])
    starts, p = edges[:-1], source.params
    unit = p["units"].removeprefix("dB re 1 ").replace("^2", "²")
    unit = f"dB re 1 {re.sub('^uV', 'µV', unit).replace('(unit of the traces)', 'a.u.')}"
    window = p["window"] if isinstance(p["window"], str) else " ".join(map(str, p["window"]))
    spacing = f"{p['bin_spacing_hz']:.2g} Hz bins, true resolution {p['resolution_hz']:.2g} Hz"
    caption = f"{p['window_s']:.3g}-s {window} windows every {p['hop_s']:.3g} s; {spacing}"
    for place, values in source.channels(places):
        power = (10 ** (values / 10) if source.decibel else values).astype(np.float64)
        whole = np.isfinite(power)
        sums = np.add.reduceat(np.where(whole, power, 0), starts, axis=1)
        counts = np.add.reduceat(whole, starts, axis=1, dtype=np.int64)
        power = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        yield Page(source.channel_ids[place], power[shown], source.freqs[shown], centres, unit, caption)


def draw_coherences(artifact: Path, out_dir: Path, *, title: str, suffix: str = "png") -> list[Path]:
    """Draw every pair of a finished coherence: ``<session>_coherence_<number>.<suffix>``."""
    path = next(artifact.glob("*_coherence.npz"))
    with np.load(path, allow_pickle=False) as stored:
        levels = float(stored["level_of_chance"]), float(stored["imaginary_level_of_chance"])
        axes = stored["freqs"].astype(np.float64), stored["times"]
        return [
            draw_coherence(
                out_dir / f"{path.stem}_{number + 1}.{suffix}",
                (str(pair[0]), str(pair[1])),
                *axes,
                stored["coherence"][number],
                stored["imaginary_coherence"][number],
                levels,
                title,
            )
            for number, pair in enumerate(stored["pairs"])
        ]
