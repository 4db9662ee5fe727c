import numpy as np
import pytest

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import mean_template
from src.preprocess.spikes.parameters import ConditioningParams, SpikeConditioningParams
from src.recordings.extracellular.spike_trains import write_mat
from src.signals import BadInput
from src.simulate.spikes import NEURONS, SPIKE_SAMPLES, lookalike, simulate

TEMPLATE = tuple(mean_template(np.stack([n.at(np.arange(-10, 70)) for n in NEURONS])).tolist())
SWITCHES: dict = {
    "nothing": {"low_hz": None},
    "band-pass": {"low_hz": 100.0, "high_hz": 6000.0},
    "wavelet": {"wavelet": "sym4", "finest": 3},
    "matched filter": {"template": TEMPLATE, "template_onset": 10},
    "everything": {"high_hz": 6000.0, "wavelet": "db4", "template": TEMPLATE, "template_onset": 10},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_louder_recording_is_a_louder_result(name):
    chain = Conditioning(**SWITCHES[name])
    trace, _ = simulate(40, 8.0, 1, duration_s=0.5)
    ours = chain.apply(trace)
    np.testing.assert_allclose(chain.apply(16 * trace), 16 * ours, atol=1e-3 * np.abs(ours).max())


def test_each_switch_does_its_work():
    trace, train = simulate(300, 5.0, 2, duration_s=4.0, sway=3.0)
    plain = Conditioning(low_hz=None).apply(trace)
    np.testing.assert_array_equal(plain, trace)
    high = Conditioning(low_hz=100.0).apply(trace)
    assert (
        abs(np.convolve(high, np.ones(2500) / 2500, mode="valid")).max()
        < 0.1 * np.abs(np.convolve(trace, np.ones(2500) / 2500, mode="valid")).max()
    )
    quiet = np.ones(len(trace), bool)
    quiet[(train.index[:, None] + np.arange(-30, 100)).clip(0, len(trace) - 1)] = False
    smooth = Conditioning(low_hz=100.0, wavelet="sym4").apply(trace)
    assert smooth[quiet].std() < 0.9 * high[quiet].std()
    matched = Conditioning(low_hz=100.0, template=TEMPLATE, template_onset=10).apply(trace)

    def contrast(x):
        return np.quantile(x[train.index[:, None] + np.arange(0, 25)].max(axis=1), 0.5) / x[quiet].std()

    assert contrast(matched) > 1.2 * contrast(high)


def test_settings_are_plain_and_typos_are_refused():
    chain = Conditioning(**SWITCHES["everything"])
    assert Conditioning.from_dict(chain.to_dict()) == chain
    assert chain.bandpass_only() == Conditioning(high_hz=6000.0)
    with pytest.raises(TypeError):
        Conditioning.from_dict({"low": 3})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("D1", "D4"):
        trace, train = lookalike(name, 0, duration_s=2.0)
        write_mat(folder / f"{name}.mat", train if name == "D1" else None, trace)
    return folder


def condition(input_dir, output_dir, **changes):
    changes = {"figures": False} | changes
    return SpikeConditioningParams(str(input_dir), str(output_dir), **changes).run()


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
    chain = ConditioningParams(wavelet="sym4")
    given = {"conditioning": chain, "template_from": str(folder / "D1.mat"), "figures": True}
    assert condition(folder / "D4.mat", tmp_path, **given).exit_code == 0
    assert (tmp_path / "D4.png").stat().st_size > 10_000
    assert condition(folder / "D4.mat", tmp_path / "plain").exit_code == 0
    different = np.load(tmp_path / "D4" / "conditioned.npy") - np.load(tmp_path / "plain" / "D4" / "conditioned.npy")
    assert np.abs(different).max() > 1


@pytest.mark.parametrize("length", [2, 31, 32, 1000, 4097])
@pytest.mark.parametrize("wavelet", ["sym4", "db4"])
def test_without_a_threshold_the_trace_comes_back_whatever_its_length(length, wavelet):
    trace = np.random.default_rng(length).standard_normal(length)
    np.testing.assert_allclose(Conditioning(wavelet=wavelet, scale=0).denoised(trace), trace, atol=1e-10)


def test_noise_falls_and_spikes_keep_their_height():
    rng = np.random.default_rng(0)
    clean = np.zeros(20_000)
    shape = NEURONS[3].at(np.arange(SPIKE_SAMPLES))
    for start in range(100, 19_000, 500):
        clean[start : start + SPIKE_SAMPLES] += shape
    noisy = clean + 0.3 * rng.standard_normal(len(clean))
    denoised = Conditioning(wavelet="sym4").denoised(noisy)
    assert np.std(denoised - clean) < 0.6 * np.std(noisy - clean)
    for start in range(100, 19_000, 500):
        assert denoised[start : start + 40].max() == pytest.approx(3.9, abs=0.6)


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_a_factor_multiplies_the_result_whatever_the_colour_of_the_noise(rule):
    white = np.random.default_rng(1).standard_normal(50_000)
    chain = Conditioning(wavelet="db4", level=4, finest=4, scale=1.0, rule=rule)
    assert np.abs(chain.denoised(white)).mean() < 0.5 * np.abs(white).mean()
    for trace in (white, np.cumsum(white)):
        np.testing.assert_allclose(chain.denoised(4 * trace), 4 * chain.denoised(trace), atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"wavelet": "nope"}, {"rule": "firm"}, {"finest": 6}, {"finest": 0}, {"scale": -1.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInput):
        Conditioning(**wrong)


def test_what_there_is_nothing_to_do_with_is_refused(tmp_path):
    with pytest.raises(BadInput, match="longer recording"):
        Conditioning(wavelet="sym4").denoised(np.ones(1))
    with pytest.raises(BadInput, match="holds no recording"):
        condition(tmp_path / "nothing", tmp_path / "out")
