import numpy as np
from matplotlib import image

from src.reports.spike_conditioning import draw_conditioning
from src.simulate.spikes import simulate


def test_conditioning_is_drawn_step_by_step(tmp_path):
    for seconds in (0.001, 1.0):
        trace, _ = simulate(int(60 * seconds), 8.0, 0, duration_s=1.0)
        steps = {"recorded": trace[: int(25_000 * seconds)], "band-passed": trace[: int(25_000 * seconds)] / 2}
        path = draw_conditioning(tmp_path / "c.png", title="x", steps=steps, fs_hz=25_000.0)
        pixels = image.imread(path)[..., :3]
        assert len(np.unique(pixels.reshape(-1, 3)[::97], axis=0)) > 5
