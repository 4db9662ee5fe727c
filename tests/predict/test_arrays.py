"""Arrays in, results out: the same numbers as the verbs give, and one line for what cannot be used."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from src.predict.arrays import find_units, sleep_states, sort_spikes, spectrogram, spike_rates
from src.preprocess.lfp.parameters import LfpEpochsParams
from src.preprocess.lfp.spectrogram_file import open_spectrograms
from src.signals import BadInput
from src.simulate.lfp import simulate_session
from src.simulate.spikes import lookalike

OASIS: dict[str, Any] = {"engine": "oasis", "cascade_model": "tau0.8s"}
WAVE = np.sin(np.arange(99.0))


@dataclass
class Recorded:
    """A SpikeInterface recording, as far as it is used."""

    traces: np.ndarray
    fs_hz: float

    def get_traces(self):
        return self.traces

    def get_sampling_frequency(self):
        return self.fs_hz


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A simulated session on disk, and its traces ``(time, channel)``."""
    made = simulate_session(tmp_path_factory.mktemp("lfp"), n_channels=2, minutes=8.0, shanks=(0,))
    next(made.folder.parent.glob("*_hypnogram.csv")).unlink()  # nobody has scored it
    (file,) = made.folder.rglob("*_lfp_traces.npz")
    with np.load(file) as stored:
        return made, stored["traces"], float(stored["sampling_rate"])


def test_spectrograms_and_states_are_those_of_the_verb(session, tmp_path):
    made, traces, fs_hz = session
    LfpEpochsParams(input_dir=str(made.folder), output_dir=str(tmp_path / "out"), workers=1).run()
    (file,) = tmp_path.rglob("*_spectrograms.*")
    stored = open_spectrograms(file)
    shown = spectrogram(traces.T, fs_hz)
    assert shown.power.shape == (2, len(stored.freqs), len(stored.times))
    for place, values in stored.channels(range(2)):
        np.testing.assert_array_equal(shown.power[place], stored.to_decibel(values))
    found = sleep_states(Recorded(traces, fs_hz))
    (scored,) = tmp_path.rglob("hypnogram.csv")
    assert list(found.stages) == [line.split(",")[2] for line in scored.read_text().splitlines()[1:]]
    assert len(found.confidence) == len(found.onset_s) == len(found.stages)
    assert any("no muscle activity" in warning for warning in found.warnings)


def test_a_stretch_without_data_is_unscored_and_leaves_the_rest_as_it_is(tmp_path):
    made = simulate_session(tmp_path, n_channels=2, minutes=16.0, shanks=(0,), fs_hz=1250.0)
    (file,) = made.folder.rglob("*_lfp_traces.npz")
    with np.load(file) as stored:
        traces = stored["traces"].T.astype(np.float32)
    whole = sleep_states(traces, 1250.0)
    traces[:, :75_000] = np.nan  # the first minute: 15 epochs
    found = sleep_states(traces, 1250.0)
    lost = found.stages == "unscored"
    np.testing.assert_array_equal(np.flatnonzero(lost), np.arange(15))
    np.testing.assert_array_equal(np.isnan(found.confidence), lost)
    assert (found.stages[~lost] == whole.stages[~lost]).mean() >= 0.95
    assert any("15 epochs unscored" in warning for warning in found.warnings)


def test_traces_become_spikes():
    rng = np.random.default_rng(1)
    spikes = rng.random((3, 400)) < 0.05
    decay = np.exp(-np.arange(40) * 0.5 / 1.25)
    calcium = np.stack([np.convolve(row, decay)[:400] for row in spikes])
    fluorescence = 100 * (1 + 0.5 * calcium) + rng.normal(size=spikes.shape)
    rates = spike_rates(fluorescence, 2.0, engine="oasis", cascade_model="tau1.25s")
    assert rates.dff.shape == rates.expected.shape == (3, 400)
    np.testing.assert_allclose(rates.rates_hz, rates.expected * 2.0)
    assert all(np.corrcoef(rates.expected[i], spikes[i])[0, 1] > 0.6 for i in range(3))
    again = spike_rates(rates.dff, 2.0, engine="oasis", cascade_model="tau1.25s", is_dff=True)
    np.testing.assert_allclose(again.expected, rates.expected, atol=1e-5)


def test_rates_are_those_of_the_verb_and_cells_that_are_left_out_are_named():
    fluorescence = 100 + np.random.default_rng(1).normal(size=(3, 400))
    fluorescence[1] = 7.0
    rates = spike_rates(fluorescence, 10.0)
    assert any("1 of 3 cells left out: 1 constant (2)" in note for note in rates.notes), rates.notes
    assert any("EXC_7.5Hz" in note for note in rates.notes), rates.notes
    with pytest.raises(BadInput, match="NaN"):
        spike_rates(np.full((2, 400), np.nan), 10.0)


def transients(cells: int, frames: int, fs_hz: float = 7.5) -> np.ndarray:
    """ΔF/F of random spikes with an indicator of 0.8 s, in noise."""
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(int(4 * fs_hz)) / (0.8 * fs_hz))
    spikes = rng.random((cells, frames)) < 0.5 / fs_hz
    calcium = np.stack([np.convolve(row, decay)[:frames] for row in spikes])
    return 0.3 * calcium + 0.05 * rng.standard_normal(calcium.shape)


def test_an_array_with_its_axes_exchanged_is_refused_or_named():
    dff = transients(20, 300)
    for traces in (dff, 100 * (1 + dff) * np.linspace(0.5, 3, 20)[:, None]):
        with pytest.raises(BadInput, match=r"source: has shape \(300, 20\): neighbouring rows.*source\.T"):
            spike_rates(traces.T, 7.5, **OASIS)
        assert not any("source.T" in note for note in spike_rates(traces, 7.5, **OASIS).notes)
    wide = spike_rates(transients(300, 240).T, 7.5, **OASIS)
    assert any("shape (240, 300): neighbouring rows" in note for note in wide.notes)


def test_gaps_and_masks_are_named_and_cells_without_a_window_left_out():
    traces = 100 * (1 + transients(4, 600))
    gap = traces.copy()
    gap[:, 200:300] = np.nan
    notes = spike_rates(gap, 7.5).notes
    assert any("gaps in the traces take 31 % of the frames" in note for note in notes), notes
    masked = np.ma.masked_array(traces, np.isnan(gap))
    assert spike_rates(masked, 7.5).notes == notes
    gap = traces.copy()
    gap[:2, ::5] = np.nan
    rates = spike_rates(gap, 7.5)
    assert rates.cell_state.tolist() == [4, 4, 0, 0]
    assert any("2 of 4 cells left out: 2 too many gaps (1, 2)" in note for note in rates.notes), rates.notes
    with pytest.raises(BadInput, match=r"^signal: no cell can be used: 2 too many gaps \(1, 2\); fill short gaps"):
        spike_rates(gap[:2], 7.5)


def test_a_period_in_place_of_a_rate_is_answered_with_the_rate():
    traces = 100 * (1 + transients(2, 4200))
    assert any("give fs_hz=7.502 if 133.3 is milliseconds" in note for note in spike_rates(traces, 133.3).notes)
    with pytest.raises(BadInput, match=r"give fs_hz=7\.502 if 0\.1333 is seconds per frame"):
        spike_rates(traces, 0.1333)
    with pytest.raises(BadInput, match=r"fewer than the baseline's window of 3999 \(30 s at 133\.3 Hz\); check rate"):
        spike_rates(traces[:, :900], 133.3)


def test_a_wire_is_sorted_with_the_neurons_of_another():
    trace, train = lookalike("D1", 1, duration_s=12.0)
    other, truth = lookalike("D2", 2, duration_s=4.0)
    found = sort_spikes(other, trace, train.index, train.unit, 25_000.0)
    nearest = np.abs(found.train.index[:, None] - truth.index[None]).min(axis=1)
    assert (nearest <= 50).mean() > 0.9
    assert len(found.train) > 0.8 * len(truth)


def test_the_units_of_a_wire_are_found_without_labels():
    rng = np.random.default_rng(0)
    trace = rng.standard_normal(100_000).astype(np.float32)
    peaks = np.sort(rng.choice(np.arange(200, 99_000, 100), 120, replace=False))
    trace[peaks[:, None] + np.arange(-30, 60)] -= 15 * np.exp(-0.5 * (np.arange(-30, 60) / 3) ** 2)
    units = find_units(trace, 25_000.0)
    distance = np.abs(units.found.train.index[:, None] - peaks)
    assert len(units.templates) == 1
    assert (distance.min(axis=0) <= 2).mean() > 0.97
    assert (distance.min(axis=1) <= 2).mean() > 0.97
    again = find_units(Recorded(trace[:, None], 25_000.0))
    np.testing.assert_array_equal(again.found.train.index, units.found.train.index)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrogram(np.zeros((2, 10))), r"signal: has shape \(2, 10\) and rate None"),
        (lambda: spectrogram(np.zeros((2, 4000)), 500.0, preset="slep"), "'slep' is not known"),
        (lambda: sleep_states(np.zeros((2, 10)), 500.0), "signal: "),
        (lambda: find_units(np.zeros((1, 2, 3)), 25_000.0), "signal: "),
        (lambda: find_units(np.zeros(0), 25_000.0), r"signal: has shape \(1, 0\)"),
        (lambda: find_units(np.zeros((99, 1)), 25_000.0), r"signal: has shape \(99, 1\).*give \(channel, time\)"),
        (
            lambda: spectrogram(np.zeros((1, 100)), 500.0),
            r"^signal: 100 samples \(0\.2\d* s\) are shorter than one window of \d+; give a longer recording or",
        ),
        (
            lambda: sort_spikes(WAVE, WAVE, [5, 99], [1, 2], 25e3),
            r"labels: 1 index outside 0…98 \(the first is 99\); index counts samples from 0",
        ),
        (lambda: sort_spikes(WAVE, WAVE, [5], ["a"], 25e3), "labels: 'unit' holds something other than whole numbers"),
        (lambda: sort_spikes(WAVE, WAVE, [5], [0], 25e3), "labels: 1 unit outside 1…100.*number the neurons 1, 2, 3"),
        (lambda: sort_spikes(WAVE, [WAVE, WAVE], [5], [1], 25e3), r"labelled: has 2 channels; give one: signal\[0\]"),
        (lambda: sort_spikes([WAVE, WAVE], WAVE, [5], [1], 25e3), "signal: has 2 channels"),
        (
            lambda: sort_spikes(WAVE, WAVE, [5], [1], 25),
            "25 Hz, too low for spikes; give the rate in Hz: 25 kHz is 25000",
        ),
        (lambda: sort_spikes(WAVE, WAVE, [5], [1], cast(Any, "25k")), "signal: has shape .* and rate 25k"),
        (lambda: sort_spikes(np.full(99, np.inf), WAVE, [5], [1], 25e3), "signal: .* infinite samples; mark samples"),
        (lambda: find_units(WAVE, 25), "too low for spikes"),
        (lambda: spike_rates(np.zeros(10), 2.0), r"source: has shape \(10,\)"),
        (
            lambda: spike_rates(np.ones((2, 10)), 2.0, engine="oasis", cascade_model="tau1s"),
            "10 frames of 2 cells are fewer than the",
        ),
        (lambda: spike_rates(np.ones((2, 10)), 2.0, engine="oasis"), "cascade_model: is auto; engine=oasis needs no"),
        (lambda: spike_rates(np.ones((2, 10)), 2.0, cascade_modle="auto"), "did you mean cascade_model"),
        (lambda: spectrogram(np.zeros((2, 4000)), fs=500.0), "fs: is no parameter of .*; did you mean fs_hz"),
        (lambda: sleep_states(np.zeros((2, 10)), 500.0, output_dir="x"), "output_dir: is no parameter"),
        (
            lambda: spike_rates(np.zeros((0, 400)), 2.0),
            r"source: has shape \(0, 400\).*give numbers as \(neuron, time\)",
        ),
        (lambda: spike_rates(np.ones((2, 400), complex), 2.0), "type complex128"),
        (lambda: spike_rates(np.ones((2, 400)), float("inf")), "fs_hz: is inf; give a positive number"),
        (lambda: spike_rates(np.ones((2, 400)), cast(Any, "7.5")), "fs_hz: is '7.5'"),
    ],
)
def test_what_cannot_be_used_is_named(call, message):
    with pytest.raises(BadInput, match=message):
        call()
