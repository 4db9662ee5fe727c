"""A night in one piece, as most tests want it: some channels at one rate, and its scoring."""

from src.recordings.sleep.channels import join_channels
from src.recordings.sleep.edf import read_channels
from src.recordings.sleep.nights import load_channels, load_scoring
from src.recordings.sleep.stage_names import ScoringOptions

AS_IT_IS = ScoringOptions()


def read_recording(path, channels=None, fs_hz=None):
    found = read_channels(path, channels)
    return join_channels(found, fs_hz or found[0].fs_hz)


def load(night, channels, fs_hz=None, aliases=None, scoring=AS_IT_IS):
    found = load_channels(night, channels, aliases or {})
    return join_channels(found, fs_hz or found[0].fs_hz), load_scoring(night, scoring)
