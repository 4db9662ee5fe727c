"""Folders of recordings: which nights are found, whose they are, and what reading them gives."""

from datetime import date, time

import edfio
import numpy as np
import pytest

from src.recordings.sleep.nights import KINDS, Night, discover, load_channels
from src.signals import BadInput
from tests.nights import load

START: dict = {"recording": edfio.Recording(startdate=date(1989, 4, 24)), "starttime": time(16, 13)}


def psg(path, label="EEG Fpz-Cz", fs_hz=100, seconds=120, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = np.random.default_rng(0).normal(0, 20, seconds * fs_hz).clip(-400, 400)
    signal = edfio.EdfSignal(data, fs_hz, label=label, physical_dimension="uV", physical_range=(-500, 500))
    edfio.Edf([signal], data_record_duration=1, **START).write(path)


def hypnogram(path, n=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    marks = [edfio.EdfAnnotation(30.0 * i, 30.0, f"Sleep stage {'W12R'[i % 4]}") for i in range(n)]
    edfio.Edf([], annotations=marks, **START).write(path)


def test_sleep_edf_pairs_files_and_knows_subjects(tmp_path):
    cassette, telemetry = tmp_path / "sleep-cassette", tmp_path / "sleep-telemetry"
    for stem, scoring in (("SC4001E0", "SC4001EC"), ("SC4002E0", "SC4002EC"), ("SC4112E0", "SC4112EC")):
        psg(cassette / f"{stem}-PSG.edf")
        hypnogram(cassette / f"{scoring}-Hypnogram.edf")
    psg(telemetry / "ST7011J0-PSG.edf")
    hypnogram(telemetry / "ST7011JP-Hypnogram.edf")
    psg(telemetry / "ST7012J0-PSG.edf")
    hypnogram(cassette / "SC4191EP-Hypnogram.edf")
    (tmp_path / "RECORDS").write_text("listing")
    found = discover("sleep_edf", tmp_path)
    assert [(n.recording_id, n.subject_id) for n in found] == [
        ("SC4001", "SC400"),
        ("SC4002", "SC400"),
        ("SC4112", "SC411"),
        ("ST7011", "ST701"),
        ("ST7012", "ST701"),
    ]
    assert found[0].hypnogram == cassette / "SC4001EC-Hypnogram.edf"
    assert found[-1].hypnogram is None


def test_two_files_for_one_night_are_not_chosen_between(tmp_path):
    psg(tmp_path / "a" / "SC4001E0-PSG.edf")
    psg(tmp_path / "b" / "SC4001F0-PSG.edf")
    with pytest.raises(BadInput, match="is the second PSG of SC4001"):
        discover("sleep_edf", tmp_path)


def test_subjects_of_a_folder(tmp_path):
    for name in ("sub-07_ses-1_psg.edf", "sub-07_ses-2_psg.edf", "lab3_patient12_a.edf"):
        psg(tmp_path / name)
    by_name = {n.recording_id: n.subject_id for n in discover("edf_folder", tmp_path)}
    assert by_name == {"sub-07_ses-1_psg": "07", "sub-07_ses-2_psg": "07", "lab3_patient12_a": "lab3_patient12_a"}
    for pattern in (r"patient(\d+)", "sub-07"):  # the second has no group
        with pytest.raises(BadInput, match="finds no subject in its name"):
            discover("edf_folder", tmp_path, subject_pattern=pattern)
    with pytest.raises(BadInput, match="is no regular expression"):
        discover("edf_folder", tmp_path, subject_pattern="(")
    (tmp_path / "sub-07_ses-1_psg.edf").unlink()
    (tmp_path / "sub-07_ses-2_psg.edf").unlink()
    assert discover("edf_folder", tmp_path, subject_pattern=r"patient(\d+)")[0].subject_id == "12"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_empty_folder_says_what_was_expected(tmp_path, kind):
    with pytest.raises(BadInput) as caught:
        discover(kind, tmp_path)
    expected = f"{tmp_path}: holds no recording of kind {kind!r}; expected {KINDS[kind].expected}"
    assert str(caught.value) == expected


def test_absent_folders_and_unknown_kinds(tmp_path):
    with pytest.raises(BadInput, match="nowhere: does not exist; check the path"):
        discover("sleep_edf", tmp_path / "nowhere")
    with pytest.raises(BadInput, match="'edf' is not a kind of recording folder; choose from: sleep_edf, edf_folder"):
        discover("edf", tmp_path)


def test_inputs_and_back(tmp_path):
    parts = tuple(tmp_path / f"ucd001_stage{name}.mat" for name in ("deep", "mix", "wake"))
    night = Night("ucd001", "ucd001", parts, tmp_path / "ucddb001_stage.txt", "ucddb")
    assert sorted(night.inputs()) == ["hypnogram", "psg_0", "psg_1", "psg_2"]
    back = Night.from_inputs("ucddb", night.inputs())
    assert (back.psg, back.hypnogram, back.kind) == (night.psg, night.hypnogram, "ucddb")
    single = Night("n", "s", (tmp_path / "n.edf",), None, "edf_folder")
    assert single.inputs() == {"psg": tmp_path / "n.edf"}
    assert Night.from_inputs("edf_folder", single.inputs()).hypnogram is None


@pytest.mark.parametrize(("value", "problem"), [("2.5", "is flat (2.5 throughout)"), ("nan", "is NaN throughout")])
def test_a_dead_channel_is_refused(tmp_path, value, problem):
    (tmp_path / "excerpt3.txt").write_text("[C3-A1]\n" + f"{value}\n" * 90_000)
    (night,) = discover("dreams", tmp_path)
    with pytest.raises(BadInput) as caught:
        load_channels(night, ["C3-A1"])
    hint = "choose another channel or leave this recording out"
    assert str(caught.value) == f"{night.psg[0]}: channel 'C3-A1' {problem}; {hint}"


def test_a_link_to_nothing_is_a_night_that_fails_and_hidden_files_are_said(tmp_path, capfd):
    psg(tmp_path / "n.edf")
    (tmp_path / "gone.edf").symlink_to(tmp_path / "elsewhere.edf")
    for name in ("..edf", "._n.edf", ".n.edf.part-01234567.edf"):
        (tmp_path / name).write_bytes(b"")
    nights = discover("edf_folder", tmp_path)
    assert [night.recording_id for night in nights] == ["gone", "n"]
    with pytest.raises(BadInput, match=r"gone\.edf: does not exist"):
        load(nights[0], None)
    said = capfd.readouterr().err
    assert said.count("is a hidden file and left out") == 1
    assert "..edf: is a hidden file" in said
