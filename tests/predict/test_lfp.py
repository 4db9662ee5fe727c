"""LFP without a bundle and with one: recognised by what it is, scored by the code of preprocess=lfp_epochs."""

import numpy as np

from src.predict.lfp import lfp_input, score_states
from src.preprocess.lfp.parameters import LfpEpochsParams, SpectrogramParams
from src.simulate.lfp import simulate_session
from tests.children import verb
from tests.recordings.extracellular.vendor_files import counts, write_neuroscope, write_rec


def test_an_input_is_what_it_holds(tmp_path):
    write_neuroscope(tmp_path / "scope", counts(1280), ".lfp", [[0, 1, 2, 3]])
    write_rec(tmp_path / "gadgets" / "a.rec", counts(1280), [[0, 1], [2, 3]])
    simulate_session(tmp_path / "made", minutes=0.5, shanks=(0,), n_channels=1)
    SpectrogramParams(input_dir=str(tmp_path / "made"), output_dir=str(tmp_path / "done"), preset="sleep").run()
    (tmp_path / "nights").mkdir()
    (tmp_path / "nights" / "night.edf").write_bytes(b"0")
    np.savez(tmp_path / "lfp.npz", lfp=np.zeros((9, 2)))
    np.savez(tmp_path / "bands.npz", psd=np.zeros((9, 2)))
    traces = next((tmp_path / "made").rglob("*.npz"))
    for path, says in (
        (tmp_path / "scope", "1 LFP sessions (NeuroScope .dat/.lfp/.eeg with .xml)"),
        (tmp_path / "scope/scope.lfp", "NeuroScope .dat/.lfp/.eeg with .xml"),
        (tmp_path / "gadgets/a.rec", "SpikeGadgets .rec"),
        (tmp_path / "made", "1 LFP sessions (extracted traces)"),
        (traces, "LFP traces of a shank"),
        (tmp_path / "done", "finished spectrograms of 1 shanks"),
        (tmp_path / "lfp.npz", "an array of LFP traces"),
        (tmp_path / "bands.npz", None),
        (tmp_path / "nights", None),
        (tmp_path / "nights/night.edf", None),
        (tmp_path / "nowhere", None),
    ):
        assert lfp_input(path) == says


def test_states_by_command_without_a_bundle(tmp_path, repository):
    simulate_session(tmp_path / "in", minutes=6, shanks=(0, 1), n_channels=2, seed=1)
    line = [repository / "infer.py", f"input={tmp_path / 'in'}", f"output_dir={tmp_path / 'out'}"]
    done = verb(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "is taken for 1 LFP sessions (extracted traces)" in done.stdout
    assert "mean confidence" in done.stdout
    same = LfpEpochsParams(input_dir=str(tmp_path / "out/spectrograms"), output_dir=str(tmp_path / "same")).run()
    assert same.exit_code == 0
    for name in ("hypnogram.csv", "states.png"):
        ours, theirs = (folder / "rat1_sh0" / name for folder in (tmp_path / "out", tmp_path / "same"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert len((tmp_path / "out/rat1/hypnogram.csv").read_text().splitlines()) == 1 + 6 * 15


def test_results_of_another_recording_are_not_scored_again(tmp_path):
    for name in ("ratA", "ratB"):
        simulate_session(tmp_path / name, name=name, minutes=2, shanks=(0,), n_channels=1)
        assert list(score_states(tmp_path / name, tmp_path / "out").values) == [f"{name}_sh0"]
    bad = next((tmp_path / "ratB").rglob("*.npz"))
    bad.write_bytes(bad.read_bytes()[:5000])
    (failed,) = score_states(tmp_path / "ratB", tmp_path / "out").failures
    assert "damaged" in failed.reason
