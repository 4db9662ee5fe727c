import pytest
import torch

from src.models.bundle import build_network
from src.models.spikes.networks import OriginalDetector, SpikeDetector

KINDS = {
    "spike_detector": {"channels": 8},
    "spike_detector_original": {},
    "spike_classifier": {"channels": 8, "hidden": 8},
    "spike_classifier_original": {},
}


def make(kind, experts=2, neurons=5):
    torch.manual_seed(0)
    return build_network(kind, {"experts": experts, "neurons": neurons, **KINDS[kind]}).eval()


@pytest.mark.parametrize(("kind", "curves"), [("spike_detector", 5), ("spike_detector_original", 1)])
def test_a_detector_answers_every_sample_of_any_length(kind, curves):
    network = make(kind)
    for length in (1, 120, 333):
        assert network(torch.randn(3, 1, length), 1).shape == (3, curves, length)


@pytest.mark.parametrize("kind", ["spike_classifier", "spike_classifier_original"])
def test_a_classifier_answers_a_waveform_with_every_neuron_and_noise(kind):
    logits = make(kind)(torch.randn(4, 1, 64), 0)
    assert logits.shape == (4, 6)
    assert torch.isinf(logits[:, -1]).all() == (kind == "spike_classifier_original")


@pytest.mark.parametrize(("kind", "field"), [("spike_detector", 119), ("spike_detector_original", 11)])
def test_the_receptive_field_is_what_it_says(kind, field):
    network = make(kind)
    assert network.receptive_field == field
    at = 200
    x = torch.randn(1, 1, 401, requires_grad=True)
    network(x)[0, :, at].sum().backward()
    touched = x.grad[0, 0].nonzero()
    assert (touched.min().item(), touched.max().item()) == (at - field // 2, at + field // 2)


@pytest.mark.parametrize("kind", KINDS)
def test_physical_units_are_divided_by_one_constant_and_amplitude_survives(kind):
    network = make(kind)
    x = torch.randn(2, 1, 64 if "classifier" in kind else 150)
    before = network(x, 1)
    network.scale[1] = 7.0
    torch.testing.assert_close(network(7 * x, 1), before, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(network(x, 1)[..., 0], before[..., 0], atol=1e-4)


def test_experts_are_networks_of_their_own_and_the_original_shares_one():
    x = torch.randn(1, 1, 200)
    ours, original = make("spike_detector"), make("spike_detector_original")
    assert not torch.equal(ours(x, 0), ours(x, 1))
    assert torch.equal(original(x, 0), original(x, 1))


def test_the_references_travel_in_the_weights():
    state = make("spike_detector", experts=3, neurons=4).state_dict()
    assert state["templates"].shape == (4, 220)
    assert state["modes"].shape == (4, 3, 220)
    assert state["noise_power"].shape == (3, 2049)
    assert {"scale", "signature"} < set(state)


def test_first_filters_are_where_they_were_put():
    network = SpikeDetector(1, 2, channels=8, stem_taps=9, dilations=(1,))
    filters = torch.randn(2, 9)
    network.start_from_filters(0, filters)
    stem = network.trunks[0].stem
    torch.testing.assert_close(stem.weight[:2, 0], filters)
    torch.testing.assert_close(stem.weight[2:4, 0], filters)
    assert stem.bias[:4].tolist() == [0, 0, -1.5, -1.5]
    with pytest.raises(ValueError, match="odd"):
        SpikeDetector(1, 2, stem_taps=8)


def test_the_original_has_the_originals_layers():
    shapes = [tuple(p.shape) for p in OriginalDetector(1, 5).network.parameters() if p.ndim == 3]
    assert shapes == [(16, 1, 5), (32, 16, 5), (64, 32, 3), (1, 64, 1)]


def test_the_fast_layout_gives_what_the_layers_one_by_one_give():
    trunk, x = make("spike_detector").trunks[0], torch.randn(3, 1, 300, requires_grad=True)
    hidden = trunk.stem(x)
    for block in trunk.blocks:
        hidden = hidden + block(torch.relu(hidden))
    expected = trunk.head(torch.relu(trunk.mix(torch.relu(hidden))))
    torch.testing.assert_close(trunk(x), expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (trunk(x), expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
