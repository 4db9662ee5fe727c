"""Channels that nobody named, and those that cannot be scored."""

import re
from dataclasses import replace

import edfio
import numpy as np
import pytest

from src.predict.sleep_input import InputOptions, find_inputs, read_input
from src.signals import BadInput
from tests.predict.test_sleep_input import BUNDLE, SETTINGS


@pytest.mark.parametrize(
    ("c3_uv", "note"), [(0.0, "EEG C3-A2 left out: .* is flat"), (500.0, "EEG C3-A2 has no vote: .* cannot be EEG")]
)
def test_a_channel_that_nobody_named_and_nobody_can_score_gives_way(tmp_path, c3_uv, note):
    rng = np.random.default_rng(0)
    amplitudes = {"EEG C3-A2": c3_uv, "EEG C4-A1": 20.0, "EEG O1-A2": 20.0}
    signals = [
        edfio.EdfSignal(uv * rng.standard_normal(60_000).clip(-4, 4), 100, label=name, physical_range=(-2000, 2000))
        for name, uv in amplitudes.items()
    ]
    for signal in signals:
        signal.physical_dimension = "uV"
    edfio.Edf(signals).write(tmp_path / "n.edf")
    (found,), bundle = (
        find_inputs(tmp_path, "edf_folder"),
        replace(BUNDLE, decision={**BUNDLE.decision, "any_channel": True}),
    )
    given = read_input(bundle, found, SETTINGS, InputOptions())
    assert given.channels == ["EEG C4-A1"]
    assert any(re.search(note, line) for line in given.notes)
    named = InputOptions(channels=("EEG C3-A2", "none"))
    if c3_uv:
        assert read_input(bundle, found, SETTINGS, named).channels == ["EEG C3-A2"]
    else:
        with pytest.raises(BadInput, match="is flat"):
            read_input(bundle, found, SETTINGS, named)
