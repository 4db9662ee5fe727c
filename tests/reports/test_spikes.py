import numpy as np
import pytest
from matplotlib import image

from src.recordings.extracellular.spike_trains import SpikeTrain
from src.reports.spikes import (
    DrawnSorting,
    DrawnUnit,
    colour,
    draw_conditioning,
    draw_precision_recall,
    draw_scores,
    draw_trace,
    draw_units,
    draw_waveforms,
    write_spike_page,
)
from src.simulate.spikes import simulate


def assert_drawn(path):
    pixels = image.imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 200
    assert len(np.unique(pixels.reshape(-1, 3)[::97], axis=0)) > 20


@pytest.mark.parametrize("empty", [False, True])
def test_a_recording_can_be_drawn_with_and_without_spikes(tmp_path, empty):
    trace, train = simulate(60, 8.0, 0, duration_s=1.0)
    shown = SpikeTrain.empty() if empty else train
    drawn = DrawnSorting("x", trace, shown, 25_000.0, 5)
    assert_drawn(draw_trace(tmp_path / "trace.png", drawn, trace, train))
    assert_drawn(draw_waveforms(tmp_path / "waveforms.png", drawn))


def test_a_very_short_recording_can_be_drawn(tmp_path):
    trace = np.zeros(30, np.float32)
    assert_drawn(draw_trace(tmp_path / "t.png", DrawnSorting("x", trace, SpikeTrain.empty(), 25_000.0, 2), trace))


def test_scores_and_precision_recall(tmp_path):
    rows = [
        {"recording": f"D{k}", "method": m, "f1_loose": 0.9 - 0.1 * k, "class_accuracy": 0.8, "chance_random": 0.2}
        for k in (2, 3)
        for m in ("ours", "theirs")
    ]
    assert_drawn(draw_scores(tmp_path / "s.png", title="x", rows=rows, loose_ms=2.0))
    curve = np.linspace(0.5, 1, 9), np.linspace(1, 0.5, 9)
    assert_drawn(draw_precision_recall(tmp_path / "p.png", title="x", curves={"D2": curve}, chosen={"D2": (0.8, 0.8)}))


def test_every_neuron_has_a_colour():
    assert len({colour(u) for u in range(1, 6)}) == 5
    assert colour(9) == colour(1)


def test_a_page_holds_its_figure_and_escapes_what_it_is_given(tmp_path):
    waveform = np.sin(np.linspace(0, 6, 75))[None].repeat(4, axis=0)
    times = np.sort(np.random.default_rng(0).uniform(0, 60, 200))
    units = [DrawnUnit(1, "good", waveform, times, np.ones(200)), DrawnUnit(2, "mua", waveform, times[:1], np.ones(1))]
    figure = draw_units(tmp_path / "u.png", units, 25_000.0, 25, 1.5)
    rows = [{"unit": 1, "snr": 8.12345, "label": "good"}, {"unit": 2, "snr": 3.0, "label": "mua"}]
    page = write_spike_page(tmp_path / "u.html", "a <b>", rows, ["group 0: hum"], "snr: size", figure).read_text()
    assert "a &lt;b&gt;" in page
    assert "8.12" in page
    assert "group 0: hum" in page
    assert "snr: size" in page
    assert page.count("data:image/png;base64,") == 1


def test_conditioning_is_drawn_step_by_step(tmp_path):
    for seconds in (0.001, 1.0):
        trace, _ = simulate(int(60 * seconds), 8.0, 0, duration_s=1.0)
        steps = {"recorded": trace[: int(25_000 * seconds)], "band-passed": trace[: int(25_000 * seconds)] / 2}
        path = draw_conditioning(tmp_path / "c.png", title="x", steps=steps, fs_hz=25_000.0)
        pixels = image.imread(path)[..., :3]
        assert len(np.unique(pixels.reshape(-1, 3)[::97], axis=0)) > 5
