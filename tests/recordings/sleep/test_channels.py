"""Channels are found however they are spelt, formed when asked for, and never guessed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.recordings.sleep.channels import choose_channels, derivation
from src.signals import BadInput

SLEEP_EDF = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal", "Resp oro-nasal", "EMG submental", "Temp rectal")


def rows(wanted, labels, aliases=None):
    return derivation(Path("n.edf"), wanted, labels, (aliases or {}).get(wanted, ()))


@pytest.mark.parametrize(
    "name",
    ["EEG Fpz-Cz", "Fpz-Cz", "FPZCZ", "fpz-cz", "EEG FPZ - CZ", "eeg_fpz-cz", "EEG:Fpz-Cz", "EEGFpz-Cz", "Fpz/Cz"],
)
def test_spelling_does_not_matter(name):
    assert rows(name, SLEEP_EDF) == (0, None)


@pytest.mark.parametrize(
    ("name", "label"),
    [("C4-A1", "C4-M1"), ("C3-M2", "EEG C3-A2"), ("T7", "T3"), ("P8", "T6-REF"), ("C3", "EEG C3-REF"), ("O1", "O1-LE")],
)
def test_electrodes_have_synonyms_and_common_references(name, label):
    assert rows(name, ("X1", label)) == (1, None)


@pytest.mark.parametrize(
    "labels", [("C3", "A1"), ("EEG C3", "EEG A1"), ("C3-REF", "A1-REF"), ("EEG C3-LE", "EEG M1-LE")]
)
def test_a_difference_is_formed_from_its_electrodes(labels):
    assert rows("C3-A1", labels) == (0, 1)


def test_a_recorded_difference_comes_before_a_formed_one():
    assert rows("C3-A1", ("C3", "A1", "C3-A1")) == (2, None)


def test_a_stricter_match_comes_before_a_looser_one():
    assert rows("EEG left", ("EOG left", "EEG left")) == (1, None)
    assert rows("left", ("EOG left", "LEFT")) == (1, None)


def test_aliases_are_tried_in_order():
    aliases = {"EEG Fpz-Cz": ["C4-A1", "C3-A2", "EEG"]}
    assert rows("EEG Fpz-Cz", ("C3", "A2", "EEG"), aliases) == (0, 1)
    assert rows("EEG Fpz-Cz", ("EEG",), aliases) == (0, None)


def test_an_absent_channel_lists_what_is_there():
    with pytest.raises(BadInput) as caught:
        rows("C3-A2", SLEEP_EDF)
    assert str(caught.value) == f"n.edf: has no channel 'C3-A2'; choose from: {', '.join(SLEEP_EDF)}"


def test_an_ambiguous_channel_is_not_guessed():
    with pytest.raises(BadInput, match=r"'left' fits 2 channels \(EOG left, EEG left\)"):
        rows("left", ("EOG left", "EEG left"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6), st.text(max_size=12))
def test_any_labels_give_a_row_or_one_line(labels, wanted):
    try:
        found = derivation("n.edf", wanted, labels)
    except BadInput:
        return
    assert 0 <= found[0] < len(labels)


WANTED = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")


def chosen(labels, rates=None):
    return choose_channels("n.edf", WANTED, labels, rates or [100.0] * len(labels), "none")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["C3-M2", "EMG chin", "EOG left", "EOG right", "ECG"], [("C3-M2", "none", "EOG left")]),
        (["F4-M1", "C4-A1", "C3-A2", "O2-M1", "E1-M2"], [("C4-A1", "none", "E1-M2"), ("C3-A2", "none", "E1-M2")]),
        (["F3", "C3", "M1", "M2", "LOC"], [("C3-M2", "none", "LOC")]),
        (["Fpz-Cz", "C3-A2", "EOG left"], [("EEG Fpz-Cz", "none", "EOG left")]),
        (["O1-A2", "F3-A2"], [("F3-A2", "none", "none")]),
        (["A2-C3", "O2 sat"], [("A2-C3", "none", "none")]),
        (["[C3-M2]", "O2 sat"], [("[C3-M2]", "none", "none")]),
        (["C3M2", "C4_A1", "EOG"], [("C3M2", "none", "EOG"), ("C4_A1", "none", "EOG")]),
        (["EEG", "Resp"], [("EEG", "none", "none")]),
        (["EEG Cz-Oz", "Temp"], [("EEG Cz-Oz", "none", "none")]),
        (["EEG(sec)", "EEG", "EOG(L)"], [("EEG(sec)", "none", "EOG(L)"), ("EEG", "none", "EOG(L)")]),
    ],
)  # fmt: skip
def test_eeg_and_eyes_are_found_by_their_names(labels, expected):
    assert chosen(labels) == expected


def test_slow_channels_and_muscles_are_no_eeg():
    with pytest.raises(BadInput, match=r"50 Hz or more .* name one .* there are: EMG chin, C3-M2, Position"):
        chosen(["EMG chin", "C3-M2", "Position"], [200.0, 1.0, 1.0])
