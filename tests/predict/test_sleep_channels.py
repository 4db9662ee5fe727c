import pytest

from src.predict.sleep_channels import choose_channels
from src.signals import BadInput

WANTED = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")


def chosen(labels, rates=None):
    return choose_channels("n.edf", WANTED, labels, rates or [100.0] * len(labels), "none")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["C3-M2", "EMG chin", "EOG left", "EOG right", "ECG"], [("C3-M2", "none", "EOG left")]),
        (["C4-A1", "F4-M1", "O2-M1", "E1-M2"], [("F4-M1", "none", "E1-M2"), ("C4-A1", "none", "E1-M2"),
                                               ("O2-M1", "none", "E1-M2")]),
        (["F3", "C3", "M1", "M2", "LOC"], [("F3-M2", "none", "LOC"), ("C3-M2", "none", "LOC")]),
        (["EEG", "Resp"], [("EEG", "none", "none")]),
        (["EEG Cz-Oz", "Temp"], [("EEG Cz-Oz", "none", "none")]),
        (["EEG(sec)", "EEG", "EOG(L)"], [("EEG(sec)", "none", "EOG(L)"), ("EEG", "none", "EOG(L)")]),
    ],
)  # fmt: skip
def test_eeg_and_eyes_are_found_by_their_names(labels, expected):
    assert chosen(labels) == expected


def test_slow_channels_and_muscles_are_no_eeg():
    with pytest.raises(
        BadInput,
        match=r"60 Hz or more .* name one .* there are: EMG chin, C3-M2, Position",
    ):
        chosen(["EMG chin", "C3-M2", "Position"], [200.0, 1.0, 1.0])
