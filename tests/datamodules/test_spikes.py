import numpy as np
import pytest
import scipy.io

from src.datamodules.spikes import GUARD_SAMPLES
from src.preprocess.spikes.conditioning import Conditioning
from src.recordings.extracellular.spike_trains import SpikeTrain, write_mat
from src.signals import BadInput

WINDOWS = {"windows": 2, "window": 120, "context": True}


@pytest.fixture(scope="module")
def data(spike_data):
    made = spike_data(WINDOWS)
    made.prepare_data()
    made.setup("fit")
    return made


def test_the_labelled_recording_is_split_by_time_with_a_guard_gap(data):
    train, val, test = (data.parts[p] for p in ("train", "val", "test"))
    assert train.start == 0
    assert val.start - train.stop == test.start - val.stop == GUARD_SAMPLES
    assert test.stop == 14 * 25_000
    counted = {part: row["spikes"] for part, row in data.summary().items()}
    assert counted["train"] == data.source.waveforms.counts.sum()
    assert sum(counted.values()) <= 45 * 14
    assert len(data.split.parts) == 3


def test_waveforms_are_fitted_to_the_training_block_alone(spike_data, spike_folder, tmp_path, data):
    content = scipy.io.loadmat(spike_folder / "D1.mat")
    trace = content["d"][0].copy()
    trace[data.parts["train"].stop + 1000 :] *= 3  # whatever happens later must not be seen
    train = SpikeTrain(content["Index"][0].astype(int) - 1, content["Class"][0].astype(int))
    write_mat(tmp_path / "D1.mat", train, trace)
    for name in ("D2", "D5"):
        (tmp_path / f"{name}.mat").write_bytes((spike_folder / f"{name}.mat").read_bytes())
    other = spike_data(WINDOWS, data_dir=str(tmp_path))
    other.setup("fit")
    np.testing.assert_allclose(other.source.waveforms.templates, data.source.waveforms.templates, atol=0.02)
    assert np.abs(other.held_out("test")[0].linear).max() > 2 * np.abs(data.held_out("test")[0].linear).max()


def test_held_out_recordings_are_as_noisy_as_their_targets(data):
    held = data.held_out("val")
    assert [h.name for h in held] == ["D2", "D5"]
    assert all(len(h.linear) == len(data.parts["val"]) for h in held)
    low, high = (np.median(np.abs(h.linear)) for h in held)
    assert high > 2 * low
    again = data.held_out("val")
    np.testing.assert_array_equal(held[0].linear, again[0].linear)
    assert not np.array_equal(data.held_out("test")[0].linear[:1000], held[0].linear[:1000])
    assert held[0].train.index.max() < len(held[0].linear)
    assert all(h.alone is None and len(h.suspects) == 0 for h in held)


def test_a_target_with_foreign_neurons_lends_its_own_background(spike_data, spike_folder, tmp_path):
    for name in ("D1", "D2"):
        (tmp_path / f"{name}.mat").write_bytes((spike_folder / f"{name}.mat").read_bytes())
    trace = scipy.io.loadmat(tmp_path / "D2.mat")["d"][0]
    shape = -9 * np.exp(-0.5 * ((np.arange(40) - 12) / 4) ** 2)
    for at in np.random.default_rng(0).integers(0, len(trace) - 40, 150):
        trace[at : at + 40] += shape
    write_mat(tmp_path / "D2.mat", trace=trace)
    data = spike_data(WINDOWS, data_dir=str(tmp_path), targets=["D2"])
    data.setup("fit")
    assert data.backgrounds[0].linear is not None
    (held,) = data.held_out("val")
    own = data.recording.linear[data.parts["val"].start : data.parts["val"].stop]
    np.testing.assert_allclose(held.linear - held.alone, own, atol=1e-4)
    assert len(held.suspects) > 50


def test_stages_say_how_a_recording_is_conditioned(data):
    (stage,) = data.steps()
    assert stage["step"] == "spike_conditioning"
    assert Conditioning.from_dict(stage["params"]) == data.conditioning
    assert data.signal.fs_hz == 25_000


def test_the_matched_filter_is_the_training_blocks_template(spike_data):
    switches = {"low_hz": 20.0, "high_hz": None, "order": 1, "wavelet": "sym4", "matched_filter": True}
    data = spike_data(WINDOWS, conditioning=switches)
    data.setup("fit")
    assert len(data.conditioning.template) == 100
    assert np.linalg.norm(data.conditioning.template) == pytest.approx(1)
    held = data.held_out("val")[0]
    assert not np.allclose(held.linear, data.conditioning.enhance(held.linear))


def test_measurements_are_cached_and_the_embedded_set_is_made_once(spike_data, tmp_path):
    made = spike_data(WINDOWS, data_dir=None, cache_dir=str(tmp_path), embedded={"duration_s": 4.0, "seed": 3})
    made.prepare_data()
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}
    assert len(stamps) == 2
    assert (made.folder() / "D6.mat").is_file()
    again = spike_data(WINDOWS, data_dir=None, cache_dir=str(tmp_path), embedded={"duration_s": 4.0, "seed": 3})
    again.prepare_data()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")} == stamps


def test_the_labelled_recording_may_be_its_own_target(spike_data):
    data = spike_data(WINDOWS, targets=["D1"])
    data.setup("fit")
    assert [b.name for b in data.backgrounds] == ["D1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": []}, "is empty; name at least one"),
        ({"targets": ["D9"]}, "holds no recording 'D9'"),
        ({"labelled": "D2"}, "no variable 'Index'"),
        ({"n_units": 3}, r"Class \d outside 1…3"),
        ({"key": "trace"}, "no variable 'trace'"),
        ({"split": {"val": 0.6, "test": 0.5}}, "too few for three blocks"),
        ({"conditioning": {"low_hz": 20_000.0}}, "outside 0…12500 Hz"),
    ],
)
def test_what_cannot_be_trained_on_is_said_in_a_line(spike_data, changes, message):
    with pytest.raises(BadInput, match=message):
        data = spike_data(WINDOWS, **changes)
        data.prepare_data()
        data.setup("fit")


def test_neurons_absent_from_the_training_block_are_no_obstacle(spike_data, spike_folder, tmp_path):
    content = scipy.io.loadmat(spike_folder / "D1.mat")
    index, unit = content["Index"][0].astype(int) - 1, content["Class"][0].astype(int)
    some = unit != 2
    write_mat(tmp_path / "D1.mat", SpikeTrain(index[some], unit[some]), content["d"][0])
    (tmp_path / "D2.mat").write_bytes((spike_folder / "D2.mat").read_bytes())
    data = spike_data(WINDOWS, data_dir=str(tmp_path), targets=["D2"])
    data.setup("fit")
    assert data.source.waveforms.counts[1] == 0
    assert data.summary()["train"]["neuron 2"] == 0
    _, train = data.source.trace(50_000, data.backgrounds[0].noise, np.random.default_rng(0))
    assert 2 not in train.unit


def test_every_other_draw_is_twice_as_dense_and_no_noisier(spike_data):
    data = spike_data(WINDOWS, draws=2, targets=["D5"])
    data.setup("fit")
    sparse, dense = data.held_out("val")
    assert len(dense.train) == 2 * len(sparse.train)
    assert len(dense.linear) == len(sparse.linear)
    quiet = [np.median(np.abs(h.linear)) for h in (sparse, dense)]
    assert quiet[1] == pytest.approx(quiet[0], rel=0.15)
