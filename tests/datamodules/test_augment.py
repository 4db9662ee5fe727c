import pytest
import torch

from src.datamodules.augment import LevelAugment, SpectrogramAugment, warp_time

MEAN, STD = torch.zeros(3, 4), torch.full((3, 4), 2.0)
LEVELS = torch.zeros(400, 6, 3, 4, 1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_all_switches_off_changes_nothing():
    x = torch.randn(3, 2, 10, 12)
    assert torch.equal(SpectrogramAugment()(x, torch.zeros(2, 10), torch.ones(2, 10)), x)
    assert LevelAugment()(LEVELS, MEAN, STD) is LEVELS
    short = torch.randn(2, 1, 3, 3)
    assert torch.equal(warp_time(short, 4), short)


def test_masks_are_filled_with_the_training_mean_of_their_cell():
    mean = torch.randn(2, 20) * 10
    x = torch.full((16, 2, 20, 30), 1e4)
    y = SpectrogramAugment(freq_mask_bins=6, time_mask_frames=8)(x, mean, torch.ones_like(mean))
    masked = y != 1e4
    assert 0.02 < masked.float().mean() < 0.6
    expected = mean[None, :, :, None].expand_as(y)
    torch.testing.assert_close(y[masked], expected[masked], atol=2e-3, rtol=0)


def test_each_sample_draws_its_own_mask():
    y = SpectrogramAugment(time_mask_frames=10)(torch.ones(32, 1, 4, 30), torch.zeros(1, 4), torch.ones(1, 4))
    assert len({tuple(row.tolist()) for row in y[:, 0, 0]}) > 8


def test_gain_shifts_a_whole_sample_level():
    y = SpectrogramAugment(gain_db=2.0)(torch.zeros(64, 1, 4, 5), torch.zeros(1, 4), torch.ones(1, 4))
    assert torch.equal(y.amax((1, 2, 3)), y.amin((1, 2, 3)))
    assert 1.0 < y[:, 0, 0, 0].std() < 3.0


def test_warp_keeps_the_ends_and_moves_a_ridge_by_at_most_the_limit():
    ramp = torch.arange(41.0).expand(50, 1, 3, 41)
    warped = warp_time(ramp, 5)
    torch.testing.assert_close(warped[..., 0], ramp[..., 0])
    torch.testing.assert_close(warped[..., -1], ramp[..., -1])
    shift = (warped - ramp).abs().amax()
    assert 1.0 < shift <= 5.0 + 1e-4
    assert (warped.diff(dim=-1) > 0).all()


def test_noise_is_independent_and_a_shift_is_one_per_window():
    noise = LevelAugment(noise=0.5)(LEVELS, MEAN, STD)
    assert abs(noise.std().item() - 1.0) < 0.02
    shift = LevelAugment(shift=0.5)(LEVELS, MEAN, STD)
    assert abs(shift.std().item() - 1.0) < 0.05
    assert shift.std(1).max() == 0


def test_a_window_loses_whole_channels_and_never_all():
    lost = LevelAugment(channel_dropout=0.5)(LEVELS, MEAN, STD).isnan()
    assert (lost.flatten(3).all(3) == lost.flatten(3).any(3)).all()
    by_window = lost[:, 0, :, 0, 0]
    assert (lost[:, :, :, 0, 0] == by_window[:, None]).all()
    assert not by_window.all(1).any()
    assert 0.3 < by_window.float().mean() < 0.5
