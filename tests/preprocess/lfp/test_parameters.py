"""Presets, what users put in their place, and lengths in samples or seconds."""

from dataclasses import dataclass

import pytest

from src.preprocess.lfp.parameters import PRESETS, SpectrogramParams, plan, resolution_warnings
from src.signals import BadInput

BANDS = {"delta": [0.5, 4]}


@dataclass
class More(SpectrogramParams):
    added: float | None = 1.0


def test_a_parameter_that_is_added_to_the_class_belongs_to_the_key_of_a_result():
    assert More().transform() == SpectrogramParams().transform() | {"added": 1.0}
    assert not {"workers", "memory_mb", "figures"} & set(More().transform())


def resolve(preset, overrides, bands):
    return SpectrogramParams(preset=preset, bands=bands, **overrides).transform()


def planned(preset="scipy_compat", fs_hz=500.0, **overrides):
    return plan(resolve(preset, overrides, BANDS), fs_hz)


def test_scipy_compat_is_the_originals_recipe():
    made = planned()
    assert (made.window, made.nperseg, made.noverlap, made.nfft) == (["tukey", 0.25], 1024, 768, 2048)
    assert (made.detrend, made.scaling, made.n_freqs) == ("constant", "density", 1025)


@pytest.mark.parametrize("fs_hz", [100.0, 250.0, 498.75, 1017.25])
def test_sleep_divides_epochs_at_any_rate(fs_hz):
    made = planned("sleep", fs_hz)
    assert made.nperseg / fs_hz == pytest.approx(2.0, abs=0.51 / fs_hz)
    assert made.hop / fs_hz == pytest.approx(0.5, abs=1.0 / fs_hz)
    assert made.nfft == made.nperseg


@pytest.mark.parametrize(
    ("overrides", "nperseg", "noverlap", "nfft"),
    [
        ({"nperseg": 512}, 512, 384, 1024),
        ({"window_s": 4.0}, 2000, 1500, 4000),
        ({"nperseg": 512, "noverlap": 0}, 512, 0, 1024),
        ({"overlap_s": 1.0}, 1024, 500, 2048),
        ({"nfft": 1024}, 1024, 768, 1024),
        ({"nperseg": 1}, 1, 0, 2),
    ],
)
def test_what_is_not_given_follows(overrides, nperseg, noverlap, nfft):
    made = planned(**overrides)
    assert (made.nperseg, made.noverlap, made.nfft) == (nperseg, noverlap, nfft)


def test_resolved_parameters_leave_nothing_out():
    for preset, values in PRESETS.items():
        params = resolve(preset, {}, BANDS)
        assert values.items() <= params.items()
        assert params["bands"] == (BANDS if values["band_powers"] else {})
    assert resolve("sleep", {"fmax_hz": float("inf")}, BANDS)["fmax_hz"] is None
    assert resolve("sleep", {}, {"delta": None, "theta": (4, 8)})["bands"] == {"theta": [4.0, 8.0]}


@pytest.mark.parametrize(
    ("fs_hz", "overrides", "says"),
    [
        (500.0, {}, None),
        (30_000.0, {}, "cannot be told apart"),
        (1500.0, {"nperseg": 512}, "cannot be told apart"),
        (500.0, {"window_s": 60.0}, "longer than most bouts"),
        (0.5, {}, "is it right"),
    ],
)
def test_absurd_resolution_is_said(fs_hz, overrides, says):
    said = resolution_warnings(planned(fs_hz=fs_hz, **overrides))
    assert (said == []) if says is None else any(says in warning for warning in said)


def test_what_decides_the_extraction():
    params = SpectrogramParams(bad_channels=[3, "A"], reference="median", sampling_rate_hz=250.0)
    assert params.extraction()["bad_channels"] == ["3", "A"]
    with pytest.raises(BadInput, match="reference"):
        SpectrogramParams(reference="car").extraction()


@pytest.mark.parametrize(
    ("preset", "overrides", "bands", "names"),
    [
        ("slepe", {}, BANDS, "preset"),
        ("sleep", {"nperseg": 512, "window_s": 1.0}, BANDS, "nperseg"),
        ("sleep", {"noverlap": 5, "overlap_s": 1.0}, BANDS, "noverlap"),
        ("sleep", {"format": "mat"}, BANDS, "format"),
        ("sleep", {"dtype": "int8"}, BANDS, "dtype"),
        ("scipy_compat", {"dtype": "float16"}, BANDS, "dtype"),
        ("sleep", {}, {}, "bands"),
        ("sleep", {}, {"delta": [4, 1]}, "bands"),
        ("sleep", {}, {"delta": "low"}, "bands"),
        ("sleep", {}, {"delta": 4}, "bands"),
        ("sleep", {"nperseg": 100, "noverlap": 100}, BANDS, "noverlap"),
        ("sleep", {"nperseg": 100, "nfft": 50}, BANDS, "nfft"),
        ("sleep", {"window": "hannning"}, BANDS, "window"),
        ("sleep", {"detrend": "linear"}, BANDS, "detrend"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_recording(preset, overrides, bands, names):
    with pytest.raises(BadInput) as error:
        resolve(preset, overrides, bands)
    assert error.value.source == names


def test_tapers_that_eight_samples_could_not_hold():
    assert planned("sleep", window=["multitaper", 4, 7]).tapers.shape == (7, 1000)


@pytest.mark.parametrize("overrides", [{"window_s": -1.0}, {"window_s": 0.0001}, {"overlap_s": 3.0}])
def test_seconds_that_no_rate_can_use(overrides):
    with pytest.raises(BadInput):
        planned("sleep", **overrides)
