import torch

from src.models.confusion import ConfusionByRecording


def test_confusion_is_counted_per_recording_and_skips_unscored():
    metric = ConfusionByRecording(2, 3)
    metric.update(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, -1, 2]), torch.tensor([0, 0, 1, 1]))
    metric.update(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    counts = metric.compute()
    assert counts[0].tolist() == [[2, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert counts[1].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
