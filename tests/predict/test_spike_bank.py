import numpy as np
import pytest

from src.models.spike_scoring import score
from src.predict.spike_bank import sort_with_bank
from src.recordings.extracellular.spike_trains import read_spikes
from src.signals import BadInput


@pytest.mark.parametrize("gain", [0.0, float("nan")])
def test_a_gain_of_nothing_is_refused_before_anything_is_written(spike_folder, tmp_path, gain):
    with pytest.raises(BadInput, match=r"options\.gain: is .*give a factor other than 0"):
        sort_with_bank(spike_folder / "D2.mat", tmp_path / "out", labelled=str(spike_folder / "D1.mat"), gain=gain)
    assert not (tmp_path / "out").exists()


def test_a_negative_gain_turns_the_recording_over(spike_folder, tmp_path):
    import scipy.io

    labelled = str(spike_folder / "D1.mat")
    trace = scipy.io.loadmat(spike_folder / "D2.mat")["d"]
    scipy.io.savemat(tmp_path / "turned.mat", {"d": -trace})
    given = sort_with_bank(tmp_path / "turned.mat", tmp_path / "a", labelled=labelled, gain=-1.0, figures=False)
    alone = sort_with_bank(spike_folder / "D2.mat", tmp_path / "b", labelled=labelled, gain=1.0, figures=False)
    assert given.exit_code == alone.exit_code == 0
    np.testing.assert_array_equal(
        read_spikes(tmp_path / "a" / "turned.mat").index, read_spikes(tmp_path / "b" / "D2.mat").index
    )


def test_a_recording_that_gain_leaves_upside_down_is_never_a_traceback(spike_folder, tmp_path):
    """Known polarity, wrong sign: the user's word counts, and nothing fails on the way."""
    summary = sort_with_bank(
        spike_folder / "D2.mat", tmp_path, labelled=str(spike_folder / "D1.mat"), gain=-1.0, figures=False
    )
    assert summary.exit_code == 0 or "Traceback" not in summary.failures[0].reason


def test_an_earlier_sorting_can_be_the_labels(spike_folder, tmp_path):
    labels = read_spikes(spike_folder / "D1.mat")
    np.savez(
        tmp_path / "D1_sorting.npz",
        unit_ids=np.arange(11, 16),
        num_segment=np.array([1]),
        sampling_frequency=np.array([25_000.0]),
        spike_indexes_seg0=labels.index + 8,
        spike_labels_seg0=labels.unit + 10,
    )
    summary = sort_with_bank(
        spike_folder / "D2.mat",
        tmp_path / "out",
        labelled=str(spike_folder / "D1.mat"),
        sorting=str(tmp_path / "D1_sorting.npz"),
        figures=False,
        exports=["spikeinterface", "phy"],
    )
    lines = "\n".join(summary.values["D2"])
    assert "neuron 1 is unit 11, 2 is unit 12" in lines
    found, truth = read_spikes(tmp_path / "out" / "D2.mat"), read_spikes(spike_folder / "truth" / "D2.mat")
    result = score((truth.index + 8, truth.unit), (found.index, found.unit), 250_000)
    assert result.strict.f1 > 0.95
    assert result.class_accuracy > 0.9
    assert "good" in (tmp_path / "out" / "D2_phy" / "cluster_group.tsv").read_text()
