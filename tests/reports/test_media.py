"""The pictures that trackers show of a training."""

import numpy as np
import pytest
from matplotlib.image import imread

from src.reports.media import DRAWERS, draw_confusion, draw_media


def test_every_kind_of_picture_is_drawn_under_its_name(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 30)
    media = {
        "confusion": {"tables": {"held-out": np.array([[5, 1, 0], [0, 0, 0], [2, 0, 9]])}, "classes": "abc"},
        "staging": {
            "title": "a night", "probabilities": probabilities, "reference": np.r_[-1, probabilities.argmax(1)[1:]],
            "classes": ["Wake", "NREM", "REM"], "epoch_s": 4.0,
        },
    }  # fmt: skip
    assert set(media) <= set(DRAWERS)
    drawn = draw_media(tmp_path, media)
    assert drawn == {kind: tmp_path / f"{kind}.png" for kind in media}
    for path in drawn.values():
        assert imread(path)[..., :3].std() > 0.05  # not an empty sheet


def test_confusions_of_several_recordings_stand_side_by_side(tmp_path):
    tables = {"D2": np.eye(5, dtype=int) * 9, "D3": np.ones((6, 6), int)}
    two = imread(draw_confusion(tmp_path / "two.png", tables=tables, title="x"))
    one = imread(draw_confusion(tmp_path / "one.png", tables={"D3": tables["D3"]}, title="x"))
    assert abs(two.shape[1] - 2 * one.shape[1]) <= 2
    assert two[:, : one.shape[1], :3].std() > 0.05


def test_an_unknown_picture_is_an_error(tmp_path):
    with pytest.raises(KeyError, match="portrait"):
        draw_media(tmp_path, {"portrait": {}})
