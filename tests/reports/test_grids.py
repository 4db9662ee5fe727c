from dataclasses import replace

import numpy as np
from PIL import Image

from src.reports.grids import ForecastExample, draw_gain, draw_movie, draw_planes, window_time

RNG = np.random.default_rng(0)
EXAMPLE = ForecastExample(
    subject="fish",
    voxels=np.sort(RNG.choice(3 * 256 * 128, 40, replace=False)),
    planes=3,
    probability=RNG.random((4, 2, 40)),
    truth=RNG.random((4, 2, 40)) < 0.2,
    first=np.array([10, 12, 14, 16]),
    step_s=0.5,
    gap=3,
)


def opened(path):
    with Image.open(path) as image:
        return image.size, getattr(image, "n_frames", 1), np.asarray(image.convert("L"))


def test_pictures_are_written(tmp_path):
    curves = {"mean rate": np.zeros(2), "model": np.array([0.4, -0.1])}
    draw_gain(tmp_path / "gain.png", bits=curves, average_precision=curves, step_s=0.5, gap=3)
    draw_planes(tmp_path / "planes.png", EXAMPLE)
    for name in ("gain", "planes"):
        assert opened(tmp_path / f"{name}.png")[0][0] > 300


def test_the_film_has_a_picture_per_window_and_shows_activity(tmp_path):
    path = draw_movie(tmp_path / "movie.png", EXAMPLE)
    assert path.suffix == ".gif"
    size, frames, picture = opened(path)
    assert (size, frames) == ((512, 512), 4)
    quiet = draw_movie(tmp_path / "quiet.png", replace(EXAMPLE, truth=np.zeros((4, 2, 40), bool)))
    assert picture[30:480, :256].max() > opened(quiet)[2][30:480, :256].max()
    assert window_time(EXAMPLE.first, 2, 0.5) == 2.0
