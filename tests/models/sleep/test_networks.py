import pytest
import torch
from torch.nn import functional

from src.models.bundle import build_network
from src.models.sleep.networks import Standardize

ARGS = {"n_channels": 2, "n_freqs": 20, "n_frames": 15, "n_classes": 5}
SMALL = {**ARGS, "filters": 8, "width": 16, "blocks": 1}


def test_the_default_is_small():
    network = build_network("sleep_epoch_cnn", {"n_channels": 1, "n_freqs": 80, "n_frames": 29, "n_classes": 5})
    assert sum(p.numel() for p in network.parameters()) <= 150_000


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
