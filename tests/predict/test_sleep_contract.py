import numpy as np
import pytest

from src.predict.sleep_contract import require_contract
from src.preprocess.sleep.epochs import EpochSet
from src.signals import BadInput, SignalSpec

LFP = ("a", "b", "c", "d")
BUNDLE = SignalSpec(
    LFP, 500.0, 4.0, "dB re 1 uV^2/Hz", ("epoch", "channel", "frequency", "time"), (64, 4, 60, 7),
    tuple(np.arange(0.5, 30.5, 0.5).tolist()),
)  # fmt: skip


def check(channels=LFP, low_hz=0.5, shape=(4, 60, 7), epoch_s=4.0, units="dB re 1 uV^2/Hz"):
    freqs_hz = low_hz + 0.5 * np.arange(shape[1])
    empty = np.zeros(3)
    epochs = EpochSet(np.zeros((3, *shape)), np.zeros(3, np.int8), empty > 0, empty, freqs_hz, np.arange(7.0), {})
    require_contract(BUNDLE, epochs, channels, 500.0, epoch_s, units, source="x")


def test_epochs_of_the_bundle_s_kind_are_taken():
    check()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"low_hz": 20.0},
            r"frequencies \(Hz\): .* has \(20.0, 49.5, 60\), the bundle reads \(0.5, 30.0, 60\)",
        ),
        (
            {"channels": ("a", "a", "a", "a")},
            "channels: .* has .'a', 'a', 'a', 'a'., the bundle reads .'a', 'b'",
        ),
        ({"epoch_s": 10.0}, r"epoch length \(s\): the recording has 10.0, the bundle reads 4.0"),
        ({"shape": (1, 60, 7)}, "channels: the recording has 1, the bundle reads 4"),
        ({"units": "dB"}, "unit: the recording has dB, the bundle reads dB re 1 uV"),
    ],
)
def test_every_difference_is_named_with_both_values(changes, problem):
    with pytest.raises(BadInput, match=problem):
        check(**changes)
