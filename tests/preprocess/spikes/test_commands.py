import numpy as np
import pytest

from src.preprocess.spikes import commands
from src.preprocess.spikes.parameters import SpikeLookalikesParams
from src.recordings.extracellular.spike_trains import read_spikes, write_mat
from src.signals import BadInput
from src.simulate.spikes import lookalike

CHAIN = {"low_hz": 20.0, "high_hz": None, "order": 1, "wavelet": None, "level": 5, "finest": 3, "scale": 0.7}


def condition(input_dir, output_dir, **changes):
    given = {"workers": 1, "seed": 0, "skip": [], "key": "d", "fs_hz": 25_000.0, "conditioning": CHAIN}
    given |= {"template_from": None, "n_units": 5, "figures": False} | changes
    return commands.condition(str(input_dir), str(output_dir), **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("D1", "D4"):
        trace, train = lookalike(name, 0, duration_s=2.0)
        write_mat(folder / f"{name}.mat", train if name == "D1" else None, trace)
    return folder


def test_the_embedded_recordings_are_written(tmp_path):
    summary = SpikeLookalikesParams(output_dir=str(tmp_path), duration_s=1.0).run()
    assert summary.exit_code == 0
    assert sorted(p.name for p in tmp_path.glob("*.mat")) == [f"D{i}.mat" for i in range(1, 7)]
    assert len(read_spikes(tmp_path / "truth" / "D2.mat")) == round(3984 / 57.6)


def test_hybrids_say_what_is_missing(tmp_path):
    summary = commands.hybrids(str(tmp_path / "shared"), str(tmp_path / "out"), 0, 1.0)
    assert summary.exit_code == 1
    assert "give the folder of the shared recordings" in summary.failures[0].reason


def test_every_recording_is_conditioned_once(folder, tmp_path):
    first = condition(folder, tmp_path)
    assert [o.name for o in first.outcomes] == ["D1", "D4"]
    conditioned = np.load(tmp_path / "D4" / "conditioned.npy")
    assert conditioned.shape == (50_000,)
    assert abs(float(np.median(conditioned))) < 0.2
    again = condition(folder, tmp_path)
    assert all("as before" in lines[0] for lines in again.values.values())
    assert [o.name for o in condition(folder, tmp_path, skip=["D1"]).outcomes] == ["D4"]


def test_the_whole_chain_is_drawn_step_by_step(folder, tmp_path):
    chain = CHAIN | {"wavelet": "sym4"}
    given = {"conditioning": chain, "template_from": str(folder / "D1.mat"), "figures": True}
    summary = condition(folder / "D4.mat", tmp_path, **given)
    assert summary.exit_code == 0
    assert (tmp_path / "D4.png").stat().st_size > 10_000
    plain = condition(folder / "D4.mat", tmp_path / "plain")
    assert plain.exit_code == 0
    different = np.load(tmp_path / "D4" / "conditioned.npy") - np.load(tmp_path / "plain" / "D4" / "conditioned.npy")
    assert np.abs(different).max() > 1


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no recording"):
        condition(tmp_path / "nothing", tmp_path / "out")
