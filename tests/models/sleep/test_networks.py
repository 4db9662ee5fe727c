import pytest
import torch
from torch.nn import functional

from src.models.bundle import build_network
from src.models.sleep.networks import SequenceSettings, Standardize
from src.signals import BadInput

ARGS = {"n_channels": 2, "n_freqs": 20, "n_frames": 15, "n_classes": 5}
SMALL = {**ARGS, "filters": 8, "width": 16, "blocks": 1}


def test_standardising_uses_the_adopted_statistics_and_clips():
    layer = Standardize(1, 2, limit=3.0)
    layer.adopt(torch.tensor([[10.0, 20.0]]), torch.tensor([[2.0, 4.0]]))
    x = torch.tensor([12.0, 1000.0]).reshape(1, 1, 2, 1)
    assert layer(x).flatten().tolist() == [1.0, 3.0]


def test_a_prediction_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    network = build_network("sleep_epoch_cnn", SMALL).eval()
    x = torch.randn(6, 2, 20, 15)
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]))


def test_any_number_of_frames_will_do():
    network = build_network("sleep_epoch_cnn", SMALL).eval()
    assert network(torch.randn(2, 2, 20, 7)).shape == (2, 5)


@pytest.mark.parametrize("kind", ["sleep_epoch_cnn", "sleep_linear"])
def test_one_batch_can_be_learnt_by_heart(kind):
    torch.manual_seed(0)
    network = build_network(kind, SMALL if kind == "sleep_epoch_cnn" else ARGS)
    x, y = torch.randn(24, 2, 20, 15), torch.randint(0, 5, (24,))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    assert (network.eval()(x).argmax(1) == y).float().mean() >= 0.99


LITTLE = {"width": 8, "hidden": 6, "layers": 2, "dropout": 0.3, "filters": 4, "blocks": 1}


def sequence_network(n_frames=1, **arguments):
    torch.manual_seed(0)
    return SequenceSettings(2, 5, n_frames, 4, **{"window_epochs": 10, **LITTLE, **arguments}).network().eval()


def night(n_epochs=33, n_frames=1):
    return torch.randn(n_epochs, 2, 5, n_frames, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n_frames", [1, 7])
def test_every_epoch_gets_logits(n_frames):
    net = sequence_network(n_frames)
    logits = net(night(n_frames=n_frames).unflatten(0, (3, 11)))
    assert logits.shape == (3, 11, 4)
    assert logits.isfinite().all()


def test_without_context_neighbours_do_not_matter_and_with_it_they_do():
    levels = night(12)
    other = levels.clone()
    other[5] += 3
    alone, around = sequence_network(context="none"), sequence_network(context="gru")
    same = torch.arange(12) != 5
    assert torch.equal(alone.score_night(levels)[same], alone.score_night(other)[same])
    assert not torch.allclose(around.score_night(levels)[4], around.score_night(other)[4])


def test_a_causal_network_does_not_see_the_future():
    net = sequence_network(causal=True)
    levels = night()
    later = levels.clone()
    later[20:] += 3
    before, after = net.score_night(levels), net.score_night(later)
    assert torch.equal(before[:20], after[:20])
    assert not torch.allclose(before[20:], after[20:])


def test_an_epoch_without_signal_keeps_its_place():
    net = sequence_network()
    levels = night(10)
    levels[4] = torch.nan
    logits = net.score_night(levels)
    assert logits.isfinite().all()
    closed_up = net.score_night(torch.cat([levels[:4], levels[5:]]))
    assert not torch.allclose(logits[5:], closed_up[4:], atol=1e-3)


def test_an_absent_channel_is_not_its_mean():
    net = sequence_network()
    levels = night(10)
    levels[:, 1] = torch.nan
    mean = levels.clone()
    mean[:, 1] = 0.0
    assert net.score_night(levels).isfinite().all()
    assert not torch.allclose(net.score_night(levels), net.score_night(mean))


def test_a_night_of_one_window_is_read_once_and_longer_ones_are_averaged():
    net = sequence_network()
    levels = night(10)
    torch.testing.assert_close(net.score_night(levels), net(levels.unsqueeze(0))[0].log_softmax(-1))
    for n_epochs in (1, 11, 14, 15, 16, 40, 333):
        chances = net.score_night(night(n_epochs)).exp()
        assert chances.shape == (n_epochs, 4)
        torch.testing.assert_close(chances.sum(-1), torch.ones(n_epochs))


def test_the_ends_of_a_window_count_least():
    net = sequence_network(context="gru")
    levels = night(15)
    first, last = (net(levels[None, s : s + 10])[0].softmax(-1) for s in (0, 5))
    ramp = torch.tensor([1.0, 2, 3, 4, 5, 5, 4, 3, 2, 1])
    expected = (first[7] * ramp[7] + last[2] * ramp[2]) / (ramp[7] + ramp[2])
    torch.testing.assert_close(net.score_night(levels)[7].exp(), expected)


@pytest.mark.parametrize(
    ("kind", "shape", "most"),
    [
        ("sleep_epoch_cnn", (1, 80, 29), 150_000),
        ("sleep_sequence", (3, 10, 1), 500_000),
        ("sleep_sequence", (1, 80, 29), 500_000),
    ],
)
def test_the_defaults_are_small(kind, shape, most):
    net = build_network(kind, dict(zip(("n_channels", "n_freqs", "n_frames"), shape, strict=True)) | {"n_classes": 5})
    assert sum(p.numel() for p in net.parameters()) < most


def test_an_unknown_context_is_refused():
    with pytest.raises(BadInput, match="choose from: gru, none"):
        sequence_network(context="lstm")


def test_several_networks_as_one_are_the_mean_of_their_log_probabilities():
    mean = sequence_network(members=[3, 5])
    few = {"n_channels": 2, "n_freqs": 3, "n_frames": 1, "n_classes": 4, "window_epochs": 10, **LITTLE}
    alone = [sequence_network(), build_network("sleep_sequence", few).eval()]
    mean.members[1].load_state_dict(alone[0].state_dict())
    mean.members[0].load_state_dict(alone[1].state_dict())
    levels = night(33)
    levels[:, 1] = levels[4] = torch.nan
    expected = (alone[0].score_night(levels) + alone[1].score_night(levels[:, :, :3])) / 2
    torch.testing.assert_close(mean.score_night(levels), expected.log_softmax(-1))
    torch.testing.assert_close(mean(levels[None, :10])[0], mean.score_night(levels[:10]))


@pytest.mark.parametrize("members", [[3, 6], [0, 5]])
def test_a_member_cannot_read_rows_that_are_not_there(members):
    with pytest.raises(BadInput, match=r"members: are .* where an epoch has 5 rows"):
        sequence_network(members=members)
