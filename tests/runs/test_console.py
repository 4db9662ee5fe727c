import warnings

from src.runs.console import quiet_trainer


def test_the_trainers_notices_are_silent_and_other_warnings_are_not():
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        quiet_trainer()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("the learning rate is odd", stacklevel=1)
    assert [str(w.message) for w in seen] == ["the learning rate is odd"]
