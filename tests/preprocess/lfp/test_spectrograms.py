"""Whole sessions as a user runs them: what is found, what fails, what a kill leaves behind."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.preprocess.lfp import pages
from src.preprocess.lfp.parameters import SpectrogramParams
from src.reports import lfp as lfp_figures
from src.signals import BadInput
from tests.preprocess.lfp.lfp_files import BANDS, random_traces, write_shank
from tests.recordings.extracellular.vendor_files import write_rec


def process(tmp_path, source="in", **keys):
    keys.setdefault("workers", 2)
    keys.setdefault("bands", BANDS)
    return SpectrogramParams(str(tmp_path / source), str(tmp_path / "out"), **keys).run()


def results(folder):
    """Every file a run leaves but the manifests, which state when and how fast."""
    files = (file for file in sorted(Path(folder).rglob("*")) if file.is_file())
    kept = [f for f in files if f.name != "manifest.json" and not f.name.endswith(".lock")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in kept}


@pytest.fixture
def two_sessions(tmp_path):
    for k in (0, 1, 3):
        write_shank(tmp_path / "in", "rat1", k, random_traces(5000, 2, seed=k), channel_ids=np.arange(2) + 10 * k)
    write_shank(tmp_path / "in/more", "rat2", 0, random_traces(4000, 3, seed=9))
    return tmp_path


def test_many_sessions_and_shanks(two_sessions, capsys):
    summary = process(two_sessions)
    assert (summary.exit_code, list(summary.values)) == (0, ["rat2/sh0", "rat1/sh0", "rat1/sh1", "rat1/sh3"])
    assert list(results(two_sessions / "out")) == [
        f"{s}/sh{k}/{s}_sh{k}_spectrograms.npz" for s, k in (("rat1", 0), ("rat1", 1), ("rat1", 3), ("rat2", 0))
    ]
    assert "note rat1: no traces for shank 2" in capsys.readouterr().err
    again = process(two_sessions)
    assert all(artifact.reused for artifact in again.values.values())
    assert "4 of 4 in" in capsys.readouterr().err


def test_presets_stay_beside_each_other_and_parameters_replace(two_sessions):
    process(two_sessions, shanks=[0])
    process(two_sessions, shanks=[0], preset="sleep")
    process(two_sessions, shanks=[0], nperseg=512)
    assert list(results(two_sessions / "out" / "rat1")) == [
        "sh0/rat1_sh0_spectrograms.npz",
        "sh0_sleep/rat1_sh0_band_powers.npz",
        "sh0_sleep/rat1_sh0_spectrograms.h5",
    ]
    with np.load(two_sessions / "out/rat1/sh0/rat1_sh0_spectrograms.npz", allow_pickle=False) as arrays:
        assert json.loads(arrays["spec_params"].item())["nperseg"] == 512


def test_skipped_and_asked_for(two_sessions):
    summary = process(two_sessions, skip=["rat2", "rat1/sh1"], shanks=[0, 1, 2])
    assert [o.name for o in summary.outcomes] == ["rat1/sh0", "rat1/sh2"]
    assert summary.exit_code == 1
    assert "no traces for shank 2; there are shanks 0, 1, 3" in summary.failures[0].reason


def test_coherence_and_figures(two_sessions, monkeypatch):
    monkeypatch.setattr(lfp_figures, "DPI", 40)
    monkeypatch.setattr(pages, "COLUMNS", 100)
    options = {"preset": "sleep", "coherence": [["sh0:1", "sh3:30"]], "coherence_window_s": 4, "figures": "png"}
    summary = process(two_sessions, skip=["rat1/sh1"], **options)
    assert [o.name for o in summary.failures] == ["rat2/coherence"]
    assert "no traces for shank 3" in summary.failures[0].reason
    names = {Path(name).name for name in results(two_sessions / "out")}
    assert {"rat1_coherence.npz", "rat1_coherence_1.png", "rat1_sh3_ch31.png", "rat1_sh3_overview.png"} <= names


def broken(folder):
    """One session, every shank wrong in its own way but two."""
    good, gap = random_traces(3000, 2), random_traces(3000, 2)
    gap[1500:1600] = np.nan
    paths = [write_shank(folder, "bad", number, good) for number in (0, 1, 2)]
    np.save(paths[1].with_suffix(".npy"), good)
    paths[2].write_bytes(paths[2].read_bytes()[:9000])
    write_shank(folder, "bad", 3, random_traces(500, 2))
    write_shank(folder, "bad", 4, good, sampling_rate=None)
    write_shank(folder, "bad", 8, gap)
    return {
        1: "2 files for shank 1",
        2: "damaged",
        3: "shorter than one window of 1024",
        4: "states no sampling rate",
    }


def test_each_bad_input_is_named_and_stops_no_other(tmp_path, capsys):
    says = broken(tmp_path / "in")
    summary = process(tmp_path)
    assert summary.exit_code == 1
    assert {o.name: o.ok for o in summary.outcomes} == {f"bad/sh{k}": k not in says for k in (0, 1, 2, 3, 4, 8)}
    for outcome in summary.failures:
        assert says[int(outcome.name[-1])] in outcome.reason
        assert "\n" not in outcome.reason
    assert {name.split("/")[1] for name in results(tmp_path / "out")} == {"sh0", "sh8"}
    assert not list((tmp_path / "out").rglob("*.part*"))
    assert re.search(
        r"warning bad/sh8: samples are missing: NaN .* 62.5 % of channel 0, 62.5 % of channel 1",
        capsys.readouterr().err,
    )


def test_parameters_are_refused_before_any_work(two_sessions):
    for keys in (
        {"preset": "x"},
        {"figures": "gif"},
        {"coherence": [["a", "b"]]},
        {"nperseg": 0},
        {"noverlap": 5000},
        {"workers": -1},
    ):
        with pytest.raises(BadInput):
            process(two_sessions, **keys)
    with pytest.raises(BadInput, match="does not exist"):
        process(two_sessions, source="nowhere")
    assert not (two_sessions / "out").exists()


def test_what_cannot_be_written_or_found_is_refused_before_any_work(two_sessions):
    with pytest.raises(BadInput, match=r"has no channel 99 \(sh3:99\); its channel_ids are 30, 31"):
        process(two_sessions, coherence=[["sh0:1", "sh3:99"]], skip=["rat2"])
    assert not (two_sessions / "out").exists()
    write_rec(two_sessions / "raw/a.rec", np.zeros((300, 4), np.int16), [[0, 1], [2, 3]])
    bad: tuple[dict[str, Any], ...] = (
        {"coherence": [["sh0:0", "sh1:9"]]},
        {"coherence": [["sh0:0", "sh1:2"]], "bad_channels": ["2"]},
    )
    for keys, words in zip(bad, ("has no channel 9", "sh1:2 is one of bad_channels"), strict=True):
        with pytest.raises(BadInput, match=words):
            process(two_sessions, source="raw", **keys)
    (two_sessions / "out/a/sh0").mkdir(parents=True)
    (two_sessions / "out/a/sh0/mine.txt").write_text("a")
    summary = process(two_sessions, source="raw", shanks=[0])
    assert "already holds 'mine.txt'" in summary.failures[0].reason
    assert not (two_sessions / "out/a/lfp_traces").exists()


def test_what_extracted_traces_do_not_allow_is_refused(two_sessions):
    for keys, name in (({"bad_channels": [1]}, "bad_channels"), ({"reference": "median"}, "reference")):
        summary = process(two_sessions, **keys)
        assert len(summary.failures) == len(summary.outcomes) == 2
        assert f"{name}: applies to recordings of acquisition systems" in summary.failures[0].reason
    with pytest.raises(BadInput, match="nperseg: a window of 1000000000 samples; give 1 to"):
        process(two_sessions, nperseg=10**9)
    assert "a window of 500000000 samples" in process(two_sessions, window_s=1e6).failures[0].reason
    assert not list((two_sessions / "out").rglob("*.npz"))


def test_a_session_that_is_none_is_an_outcome(two_sessions):
    (two_sessions / "in/empty.rec").mkdir()
    summary = process(two_sessions)
    assert [o.name for o in summary.failures] == [str((two_sessions / "in/empty.rec").resolve())]
    assert len(summary.values) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_output(two_sessions):
    (two_sessions / "out").mkdir(mode=0o500)
    summary = process(two_sessions)
    assert all("cannot be written" in o.reason for o in summary.outcomes)


def test_output_that_is_a_file(two_sessions):
    (two_sessions / "out").write_text("")
    with pytest.raises(BadInput, match="out: is a file where a folder is to be written"):
        process(two_sessions)


def test_a_disk_that_fills_up_on_the_way(two_sessions, monkeypatch):
    from src.preprocess.lfp import spectrogram_file

    def full(file, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spectrogram_file.ForwardFile, "write", full)
    summary = process(two_sessions)
    assert all("no space left on the disk" in o.reason for o in summary.outcomes)
    assert not results(two_sessions / "out")
