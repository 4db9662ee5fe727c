import numpy as np
import pytest

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.matched_filter import mean_template
from src.simulate.spikes import NEURONS, simulate

TEMPLATE = tuple(float(v) for v in mean_template(np.stack([n.at(np.arange(-10, 70)) for n in NEURONS])))
SWITCHES = {
    "nothing": {"low_hz": None},
    "band-pass": {"low_hz": 100.0, "high_hz": 6000.0},
    "wavelet": {"wavelet": "sym4", "finest": 3},
    "matched filter": {"template": TEMPLATE, "template_onset": 10},
    "everything": {"high_hz": 6000.0, "wavelet": "db4", "template": TEMPLATE, "template_onset": 10},
}


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("block", [3_000, 7_777, 10**6])
def test_blocks_join_to_the_whole(name, block):
    chain = Conditioning(**SWITCHES[name])
    trace, _ = simulate(100, 8.0, 0, duration_s=1.0)
    whole = chain.apply(trace)
    joined = np.full(len(trace), np.nan)
    margin = 55
    for start, stop, piece in chain.blocks(trace, block, margin):
        first = max(start - margin, 0)
        assert len(piece) == min(stop + margin, len(trace)) - first
        joined[start:stop] = piece[start - first : stop - first]
    np.testing.assert_allclose(joined, whole, atol=2e-4 * np.abs(whole).max())


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
    assert chain.linear_only() == Conditioning(high_hz=6000.0)
    with pytest.raises(TypeError):
        Conditioning.from_dict({"low": 3})
