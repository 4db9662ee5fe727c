import torch

from src.datamodules.augment_levels import LevelAugment

MEAN, STD = torch.zeros(3, 4), torch.full((3, 4), 2.0)
LEVELS = torch.zeros(400, 6, 3, 4, 1)


def test_noise_is_independent_and_a_shift_is_one_per_window():
    torch.manual_seed(0)
    noise = LevelAugment(noise=0.5)(LEVELS, MEAN, STD)
    assert abs(noise.std().item() - 1.0) < 0.02
    shift = LevelAugment(shift=0.5)(LEVELS, MEAN, STD)
    assert abs(shift.std().item() - 1.0) < 0.05
    assert shift.std(1).max() == 0


def test_a_window_loses_whole_channels_and_never_all():
    torch.manual_seed(0)
    lost = LevelAugment(channel_dropout=0.5)(LEVELS, MEAN, STD).isnan()
    assert (lost.flatten(3).all(3) == lost.flatten(3).any(3)).all()
    by_window = lost[:, 0, :, 0, 0]
    assert (lost[:, :, :, 0, 0] == by_window[:, None]).all()
    assert not by_window.all(1).any()
    assert 0.3 < by_window.float().mean() < 0.5


def test_switched_off_it_changes_nothing():
    assert LevelAugment()(LEVELS, MEAN, STD) is LEVELS
