"""What context is for: stages that an epoch alone does not give away; and what it must not find: anything in noise."""

import numpy as np
import torch
from torch.nn import functional

from src.models.metrics import cohen_kappa
from src.models.sleep.networks import SequenceSettings


def chain(n_nights, seed, length=120):
    """Stages 0 → 1 → 2 → 1 → 0 …: the first and the last look alike, only what came before tells them apart."""
    rng = np.random.default_rng(seed)
    nights = []
    for _ in range(n_nights):
        stages = np.concatenate([np.full(rng.integers(3, 9), s) for s in (0, 1, 2, 3) * 20])[:length]
        nights.append(stages)
    stages = np.stack(nights)
    looks = np.array([0.0, 2.0, 0.0, -2.0])[stages]  # after a 2.0 comes stage 2, after a -2.0 stage 0
    levels = torch.from_numpy(looks + 0.5 * rng.standard_normal(looks.shape)).float()
    return levels[:, :, None, None, None], torch.from_numpy(stages).long()


def held_out_kappa(context, shuffle=False):
    torch.manual_seed(0)
    levels, stages = chain(12, 0)
    if shuffle:
        stages = stages.flatten()[torch.randperm(stages.numel())].view_as(stages)
    network = SequenceSettings(1, 1, 1, 4, 60, context, width=8, hidden=8, layers=1, dropout=0.0).network()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-2)
    for _ in range(60):
        loss = functional.cross_entropy(network(levels).flatten(0, 1), stages.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    unseen, true = chain(6, 1)
    counts = np.zeros((4, 4), int)
    for night, labels in zip(unseen, true, strict=True):
        np.add.at(counts, (labels.numpy(), network.score_night(night).argmax(1).numpy()), 1)
    return cohen_kappa(counts)


def test_neighbours_tell_apart_what_looks_alike():
    alone, around = held_out_kappa("none"), held_out_kappa("gru")
    assert alone < 0.75
    assert around > 0.9
    assert around - alone >= 0.06


def test_shuffled_labels_give_chance():
    assert held_out_kappa("gru", shuffle=True) < 0.1
