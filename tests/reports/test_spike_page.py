import numpy as np

from src.reports.spike_page import DrawnUnit, draw_units, write_spike_page


def test_a_page_holds_its_figure_and_escapes_what_it_is_given(tmp_path):
    waveform = np.sin(np.linspace(0, 6, 75))[None].repeat(4, axis=0)
    times = np.sort(np.random.default_rng(0).uniform(0, 60, 200))
    units = [DrawnUnit(1, "good", waveform, times, np.ones(200)), DrawnUnit(2, "mua", waveform, times[:1], np.ones(1))]
    figure = draw_units(tmp_path / "u.png", units, 25_000.0, 25)
    rows = [{"unit": 1, "snr": 8.12345, "label": "good"}, {"unit": 2, "snr": 3.0, "label": "mua"}]
    page = write_spike_page(tmp_path / "u.html", "a <b>", rows, ["group 0: hum"], figure).read_text()
    assert "a &lt;b&gt;" in page
    assert "8.12" in page
    assert "group 0: hum" in page
    assert page.count("data:image/png;base64,") == 1
