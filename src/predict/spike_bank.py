"""``method=bank``: sort with the neurons of a labelled recording, without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from src.predict.spikes import COURSEWORK_HZ, SortOptions, find_recordings, sort_recordings
from src.predict.spikes import OPTIONS as SHARED
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.labelled import load_labelled
from src.preprocess.spikes.sorting import BankSorter
from src.storage.batch import Summary
from src.storage.output import OutputFolder
from src.storage.step import fingerprint

OPTIONS = (*(name for name in SHARED if name not in ("classifier", "detector_config")), "sorting")
"""What may be given under ``options``."""


def sort_with_bank(
    source: Path, output_dir: Path, *, labelled: str, sorting: str | None = None, **options: Any
) -> Summary:
    """Sort one recording or the recordings of a folder with the neurons of a labelled one.

    Parameters
    ----------
    source, output_dir
        As for :func:`src.predict.sorter.predict`.
    labelled
        A file with the trace, ``Index`` and ``Class``. It is left out of a folder that holds it too.
    sorting
        An earlier sorting of ``labelled`` in place of ``Index`` and ``Class``: a Phy folder, or a file or folder of
        SpikeInterface.
    options
        Of :class:`~src.predict.spikes.SortOptions`. ``gain`` is found from each recording unless given.
    """
    chosen = SortOptions(**options)
    chain = Conditioning(fs_hz=chosen.fs_hz or COURSEWORK_HZ)
    known = load_labelled(Path(labelled), chain, key=chosen.key, sorting=Path(sorting) if sorting else None)
    sorter = replace(BankSorter.from_labelled(known, chain), gain=chosen.gain)
    paths = find_recordings(Path(source), chosen.recordings, [])
    if len(paths) > 1:
        paths = [p for p in paths if not p.samefile(labelled)]
    origin = {"method": "bank", "labelled": {"path": str(labelled), "sha256": fingerprint(Path(labelled))}}
    inputs = tuple(Path(p) for p in (source, labelled, sorting, chosen.truth) if p)
    return sort_recordings(sorter, paths, OutputFolder(Path(output_dir), inputs), chosen, origin)
