import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput, Recording, SignalSpec

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)


def recording(samples: np.ndarray, fs_hz: float = 100.0, channels: int = 2, units: int = 2) -> Recording:
    return Recording(
        samples=samples,
        fs_hz=fs_hz,
        channels=tuple(f"EEG {i}" for i in range(channels)),
        units=("uV",) * units,
        recording_id="night-1",
        subject_id="s1",
        source="night-1.edf",
    )


def test_bad_input_reads_as_one_line_with_the_file_the_problem_and_the_hint():
    error = BadInput("night.edf", "the file ends early", "copy it again")
    assert str(error) == "night.edf: the file ends early; copy it again"
    assert isinstance(error, ValueError)


def test_bad_input_survives_the_way_back_from_a_worker():
    error = pickle.loads(pickle.dumps(BadInput("a", "b", "c")))
    assert (error.source, error.problem, error.hint) == ("a", "b", "c")


def test_a_recording_knows_its_duration():
    assert recording(np.zeros((2, 250), np.float32), fs_hz=100.0).duration_s == 2.5


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"samples": np.zeros(5)}, "1 axes"),
        ({"samples": np.zeros((3, 5))}, "3 rows, 2 channel names, 2 units"),
        ({"channels": 3}, "2 rows, 3 channel names, 2 units"),
        ({"units": 1}, "2 rows, 2 channel names, 1 units"),
        ({"fs_hz": 0.0}, "sampling rate 0.0 Hz"),
        ({"fs_hz": -1.0}, "sampling rate -1.0 Hz"),
        ({"fs_hz": float("nan")}, "sampling rate nan Hz"),
        ({"fs_hz": float("inf")}, "sampling rate inf Hz"),
    ],
)
def test_a_recording_that_contradicts_itself_is_refused_by_name(bad, problem):
    fields = {"samples": np.zeros((2, 5)), **bad}
    with pytest.raises(BadInput, match=problem) as caught:
        recording(**fields)
    assert caught.value.source == "night-1.edf"


@given(
    channels=st.lists(names, min_size=1, max_size=4).map(tuple),
    fs_hz=st.floats(0.01, 1e5),
    window_s=st.floats(0.001, 1e4),
    units=names,
    axes=st.lists(names, max_size=4).map(tuple),
    shape=st.lists(st.none() | st.integers(1, 10_000), max_size=4).map(tuple),
)
def test_a_signal_spec_returns_unchanged_from_json(channels, fs_hz, window_s, units, axes, shape):
    spec = SignalSpec(channels, fs_hz, window_s, units, axes, shape)
    assert SignalSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_signal_spec_refuses_a_key_it_does_not_know():
    plain = SignalSpec(("EEG",), 100.0, 30.0, "uV", ("channel",)).to_dict()
    with pytest.raises(TypeError, match="colour"):
        SignalSpec.from_dict({**plain, "colour": "red"})


def test_stages_keep_their_order_and_leave_room_for_the_unscored():
    assert HUMAN_STAGES == ("W", "N1", "N2", "N3", "REM")
    assert RODENT_STAGES == ("Wake", "NREM", "REM")
    assert UNSCORED < 0


def test_an_error_is_one_printable_line_whatever_a_file_calls_itself():
    error = BadInput("a\nb.mat", "holds 'x\x1b[31m\x00'", "look\r\nagain")
    assert str(error) == "a b.mat: holds 'x\ufffd[31m\ufffd'; look again"
