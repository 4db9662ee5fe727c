"""What a user says of recordings that cannot say it themselves; light, because configurations are made of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SourceOptions:
    """Keys below ``source``; most recordings need none of them."""

    fs_hz: float | None = None  # Hz; sampling rate of the recording. A file that states another one is refused.
    key: str | None = None  # name of the variable in .npz, .h5 and .mat; dotted in MATLAB structs and cells
    dtype: str | None = None  # type of a sample in raw binary files, such as int16
    channels: int | None = None  # channels that alternate in raw binary files
    gain_uv: float | None = None  # µV per unit of the samples
    stream: str | None = None  # name of one of several streams of a recording
