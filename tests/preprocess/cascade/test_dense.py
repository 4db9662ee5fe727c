import subprocess
import sys

import numpy as np
import pytest

from src.preprocess.cascade import dense as cascade_dense
from src.preprocess.cascade.dense import ensemble_mean, fourier_convolution, import_tensorflow
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, random_network, window_by_window

NETWORKS = [random_network(TINY, seed) for seed in (3, 4, 5)]


@pytest.mark.parametrize("block", [1 << 14, 22, 40])
def test_time_is_cut_without_a_seam(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(cascade_dense, "BLOCK_SAMPLES", block)
    dff = np.random.default_rng(0).normal(0, 0.1, (3, 101)).astype(np.float32)
    result = ensemble_mean(dff, NETWORKS, TINY.windowsize)
    np.testing.assert_allclose(result, window_by_window(dff, NETWORKS, TINY), atol=1e-6)


@pytest.mark.parametrize(("width", "frames"), [(1, 7), (2, 9), (9, 9), (9, 100), (19, 65)])
def test_convolution_by_fourier_transforms_is_the_convolution(width: int, frames: int) -> None:
    tf, draw = import_tensorflow(), np.random.default_rng(width)
    hidden, kernel = (draw.normal(size=shape).astype(np.float32) for shape in ((2, frames, 3), (width, 3, 4)))
    expected = tf.nn.conv1d(hidden, kernel, 1, "VALID")
    np.testing.assert_allclose(fourier_convolution(tf, hidden, kernel), expected, atol=1e-5)


def test_neither_the_engines_nor_oasis_load_tensorflow() -> None:
    imports = ";".join(f"import src.preprocess.cascade.{name}" for name in ("inference", "train"))
    oasis = "src.preprocess.cascade.inference.open_engine('oasis', 'tau1s', fs_hz=2.0).predict(numpy.ones((1, 9)))"
    program = f"import numpy, sys;{imports};{oasis};print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_without_tensorflow_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(BadInput, match=r"need TensorFlow, which is not installed; type: pip install -r requirements"):
        import_tensorflow()
