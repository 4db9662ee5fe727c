import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly


@pytest.fixture
def script(repository, monkeypatch, tmp_path):
    """The script, working on a folder that looks like torchaudio's."""
    path = repository / "setup" / "torchaudio_without_cuda.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    package = tmp_path / "torchaudio"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("_torchaudio.abi3.so", "libtorchaudio.abi3.so"):
        (package / "lib" / name).write_text(name)
    monkeypatch.setattr(
        module, "find_spec", lambda name: importlib.util.spec_from_file_location(name, package / "__init__.py")
    )
    module.library = package / "lib"
    return module


def extension_loads(script, monkeypatch, *, cuda: bool, broken: bool = False):
    """Let torchaudio import if its extension is away or fits torch."""

    def problem():
        there = (script.library / "_torchaudio.abi3.so").exists()
        return "OSError: libtorch_cuda.so" if broken or (there and not cuda) else None

    monkeypatch.setattr(script, "import_problem", problem)
    monkeypatch.setattr(script, "torch_has_cuda", lambda: cuda)


def names(script) -> list[str]:
    return sorted(p.name for p in script.library.iterdir())


WHOLE = ["_torchaudio.abi3.so", "libtorchaudio.abi3.so"]
ASIDE = ["_torchaudio.abi3.so.aside", "libtorchaudio.abi3.so"]


def test_beside_a_torch_with_cuda_nothing_changes(script, monkeypatch, capsys):
    extension_loads(script, monkeypatch, cuda=True)
    assert script.main() == 0
    assert names(script) == WHOLE
    assert "with its compiled extension" in capsys.readouterr().out


def test_beside_a_torch_without_cuda_the_extension_is_set_aside_once(script, monkeypatch, capsys):
    extension_loads(script, monkeypatch, cuda=False)
    for _ in range(2):
        assert script.main() == 0
        assert names(script) == ASIDE
        assert "without its CUDA extension" in capsys.readouterr().out


def test_it_comes_back_when_torch_is_exchanged(script, monkeypatch):
    extension_loads(script, monkeypatch, cuda=False)
    script.main()
    extension_loads(script, monkeypatch, cuda=True)
    assert script.main() == 0
    assert names(script) == WHOLE
    assert (script.library / WHOLE[0]).read_text() == WHOLE[0]


def test_when_the_extension_is_not_to_blame_it_stays(script, monkeypatch, capsys):
    extension_loads(script, monkeypatch, cuda=True, broken=True)
    assert script.main() == 1
    assert names(script) == WHOLE
    assert "libtorch_cuda.so" in capsys.readouterr().err


def test_without_torchaudio_it_says_so(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    assert script.main() == 1
    assert "not installed" in capsys.readouterr().err


@pytest.mark.slow
def test_this_environment_is_already_as_it_should_be(repository):
    path = repository / "setup" / "torchaudio_without_cuda.py"
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class TestPythonPart:
    """What the sleep system uses of torchaudio, against arithmetic that does not."""

    @pytest.mark.parametrize(("kind", "axis"), [("TimeMasking", -1), ("FrequencyMasking", -2)])
    def test_a_mask_is_one_band_of_the_given_value(self, kind, axis):
        from torchaudio import transforms

        torch.manual_seed(0)
        mask, spectrogram = getattr(transforms, kind)(10), torch.rand(1, 30, 40) + 1.0
        widths = []
        for _ in range(50):
            masked = mask(spectrogram, mask_value=-7.0)
            hit = (masked == -7.0).transpose(axis, -1)
            assert torch.equal(masked[masked != -7.0], spectrogram[masked != -7.0])
            assert (hit == hit[:, :1]).all(), "a mask covers the other axis entirely"
            columns = torch.nonzero(hit[0, 0]).flatten()
            widths.append(len(columns))
            assert len(columns) == 0 or columns[-1] - columns[0] + 1 == len(columns), "a mask has no gaps"
        assert 0 <= min(widths) < max(widths) <= 10

    def test_resampling_keeps_a_sine_and_agrees_with_scipy(self):
        from torchaudio import functional

        fs_hz, new_hz = 256, 100
        t = np.arange(20 * fs_hz) / fs_hz
        wave = np.sin(2 * np.pi * 12.0 * t)
        ours = functional.resample(torch.from_numpy(wave), fs_hz, new_hz).numpy()
        inner = slice(new_hz, -new_hz)
        exact = np.sin(2 * np.pi * 12.0 * np.arange(ours.size) / new_hz)
        assert ours.size == 20 * new_hz
        assert np.abs(ours - exact)[inner].max() < 5e-3
        assert np.abs(ours - resample_poly(wave, new_hz, fs_hz))[inner].max() < 1e-2
