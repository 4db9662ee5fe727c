"""The three networks of the original, which read the arrays that the house's own network reads."""

from typing import Any

import pytest
import torch

from src.models.bundle import build_network

GEOMETRY = {"n_channels": 1, "n_freqs": 51, "n_frames": 59, "n_classes": 5}
KINDS = ("sleep_deep_cnn", "sleep_linear", "sleep_simple_cnn")


def test_they_have_the_published_sizes():
    deep: Any = build_network("sleep_deep_cnn", GEOMETRY)
    assert deep.head[0][0].in_features == 128 * 6 * 7
    simple: Any = build_network("sleep_simple_cnn", GEOMETRY)
    assert simple.head[1][0].in_features == 128 * 4 * 8
    linear: Any = build_network("sleep_linear", GEOMETRY)
    assert linear.head[1][0].in_features == 3009


@pytest.mark.parametrize("kind", KINDS)
def test_any_geometry_will_do_and_level_is_the_networks_business(kind):
    torch.manual_seed(0)
    network: Any = build_network(kind, {"n_channels": 2, "n_freqs": 24, "n_frames": 15, "n_classes": 3}).eval()
    decibels = torch.randn(2, 2, 24, 15)
    plain = network(decibels)
    assert plain.shape == (2, 3)
    network.standardize.adopt(torch.full((2, 24), 30.0), torch.full((2, 24), 5.0))
    torch.testing.assert_close(network(decibels * 5 + 30), plain, rtol=1e-3, atol=1e-3)
