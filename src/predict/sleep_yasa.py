"""YASA's stages of the same night, for comparison: Vallat & Walker 2021, eLife 10:e70092."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.signals import HUMAN_STAGES, UNSCORED, BadInput, Recording

YASA_EPOCH_S = 30.0
_LEAST_HZ = 80.0
_NAMES = {"WAKE": "W", "W": "W", "N1": "N1", "N2": "N2", "N3": "N3", "REM": "REM", "R": "REM"}


def yasa_stages(channels: Sequence[Recording], n_epochs: int) -> NDArray[np.int8]:
    """Stages that the package ``yasa`` finds in one EEG channel and, where there is one, an EOG channel.

    YASA is no part of the requirements: install it (``pip install yasa``) to use it. It wants unfiltered
    microvolts of a whole night.

    Parameters
    ----------
    channels
        Recordings of one channel each, at their own rates; the first that is no EOG is scored, with the
        first whose name starts with ``EOG``.
    n_epochs
        Length of the result; epochs beyond YASA's are ``UNSCORED``.

    Returns
    -------
    ndarray
        ``(epoch,)`` indices into ``HUMAN_STAGES``.

    Raises
    ------
    BadInput
        If YASA is not installed, or cannot read such a recording.
    """
    try:
        import mne
        import yasa
    except ImportError as error:
        raise BadInput("options.yasa", f"needs the package {error.name}", "pip install yasa") from error
    eog = next((r for r in channels if r.channels[0].upper().startswith("EOG")), None)
    eeg = next((r for r in channels if r is not eog), None)
    if eeg is None:
        raise BadInput("options.yasa", "there is no EEG channel", "YASA scores EEG, with or without EOG")
    used = [eeg] if eog is None or eog.fs_hz != eeg.fs_hz else [eeg, eog]
    for recording in used:
        if recording.units[0] != "uV" or recording.fs_hz < _LEAST_HZ:
            problem = f"{recording.channels[0]} is in {recording.units[0]} at {recording.fs_hz:g} Hz"
            raise BadInput("options.yasa", problem, f"YASA needs microvolts at {_LEAST_HZ:g} Hz or more")
    kinds = ["eeg", "eog"][: len(used)]
    length = min(r.samples.shape[1] for r in used)
    volts = np.stack([np.nan_to_num(r.samples[0, :length]) for r in used]).astype(np.float64) * 1e-6
    raw = mne.io.RawArray(volts, mne.create_info(kinds, eeg.fs_hz, kinds), verbose="ERROR")
    staging = yasa.SleepStaging(raw, eeg_name="eeg", eog_name="eog" if len(used) > 1 else None)
    names = [_NAMES.get(str(name), "") for name in staging.predict().hypno]
    stages = np.full(n_epochs, UNSCORED, np.int8)
    found = [HUMAN_STAGES.index(name) if name in HUMAN_STAGES else UNSCORED for name in names[:n_epochs]]
    stages[: len(found)] = found
    return stages
