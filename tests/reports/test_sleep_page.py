import re
from datetime import datetime

import numpy as np

from src.recordings.sleep.check_signal import ChannelReport
from src.reports.sleep import draw_night
from src.reports.sleep_page import ScoredNight, write_page
from src.signals import HUMAN_STAGES, RODENT_STAGES


def night(classes=HUMAN_STAGES, epoch_s=30.0, **changed):
    rng = np.random.default_rng(0)
    n = 120
    probabilities = rng.dirichlet(np.full(len(classes), 0.4), n)
    stages = probabilities.argmax(1)
    stages[7] = -1
    probabilities[7] = np.nan
    fields = {
        "recording_id": "a <night>", "channels": ["EEG C3-M2"], "classes": list(classes), "epoch_s": epoch_s,
        "start": datetime(2024, 5, 1, 22, 30), "onset_s": np.arange(n) * epoch_s, "stages": stages,
        "probabilities": probabilities, "decibels": rng.normal(size=(n, 20)), "freqs_hz": np.arange(1.0, 21.0),
    }  # fmt: skip
    return ScoredNight(**{**fields, **changed})


def page(tmp_path, scored):
    figure = draw_night(
        tmp_path / "night.png", title="x", decibels=scored.decibels, freqs_hz=scored.freqs_hz,
        probabilities=scored.probabilities, stages=scored.stages, classes=scored.classes, epoch_s=scored.epoch_s,
        start=scored.start, reference=scored.reference,
    )  # fmt: skip
    return write_page(tmp_path / "report.html", scored, figure).read_text()


def test_the_page_needs_nothing_beside_it(tmp_path):
    text = page(tmp_path, night())
    assert text.startswith("<!doctype html>")
    assert "data:image/png;base64," in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "a &lt;night&gt;" in text
    assert "22:30:00" in text
    for heading in ("Sleep statistics", "Review these first"):
        assert heading in text
    assert "Agreement" not in text
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text).lower().replace("nanovolts", "")


def test_findings_stand_above_the_picture(tmp_path):
    bad = ChannelReport("EEG C3-M2", "uV", 100.0, 0.2, 0.0, 0.0, 12.0, None, ("20.0% of the time flat",))
    text = page(tmp_path, night(sanity=[bad]))
    assert text.index("20.0% of the time flat") < text.index("data:image/png")


def test_a_reference_is_compared(tmp_path):
    scored = night()
    text = page(tmp_path, night(reference=np.maximum(scored.stages, 0)))
    assert "Agreement with the reference" in text
    assert text.count("data:image/png") == 2


def test_a_mouse_is_scored_in_its_own_stages_and_epochs(tmp_path):
    text = page(tmp_path, night(RODENT_STAGES, 4.0, start=None))
    assert "epochs of 4 s" in text
    assert "NREM" in text
    assert "N2" not in re.sub(r"base64,[^\"]+", "", text)
