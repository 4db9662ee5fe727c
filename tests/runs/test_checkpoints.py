import pickle

import pytest
import torch

from src.runs.checkpoints import AtomicCheckpointIO, read_checkpoint
from src.signals import BadInput
from tests.runs.verb import train

WHOLE = {"state_dict": {"w": torch.ones(2)}, "epoch": 3}


def test_a_failing_save_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def half(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_fabric.plugins.TorchCheckpointIO.save_checkpoint", half)
    with pytest.raises(BadInput, match="no space left"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


class Bomb:
    def __reduce__(self):
        return eval, ("1 / 0",)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", pickle.dumps(Bomb()), pickle.dumps({"state_dict": 1})],
    ids=["empty", "cut", "code", "foreign"],
)
def test_a_spoiled_checkpoint_is_refused_and_runs_nothing(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="delete it, and its run starts from the beginning"):
        read_checkpoint(path)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    torch.save(WHOLE | {"more": Bomb()}, tmp_path / "last.ckpt")
    with pytest.raises(BadInput, match="is damaged"):
        read_checkpoint(tmp_path / "last.ckpt")
    torch.save(WHOLE, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 3


def test_a_changed_weight_is_noticed(tmp_path):
    torch.save(WHOLE, tmp_path / "last.ckpt")
    content = (tmp_path / "last.ckpt").read_bytes()
    one = torch.ones(2).numpy().tobytes()
    (tmp_path / "last.ckpt").write_bytes(content.replace(one, one[:-1] + b"\x40"))
    with pytest.raises(BadInput, match="is damaged"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_run_whose_checkpoint_was_spoiled_says_what_to_do(tmp_path, capsys, monkeypatch):
    from tests.runs import toy

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(toy.Classifier, "tune", lambda *_: stop(None))
        with pytest.raises(SystemExit, match="130"):  # interrupted, as by Ctrl-C
            train(tmp_path)
    (last,) = tmp_path.glob("runs/toy/*/checkpoints/last.ckpt")
    last.write_bytes(b"")
    with pytest.raises(SystemExit):
        train(tmp_path)
    assert "last.ckpt: is damaged, or no checkpoint of ours; delete it" in capsys.readouterr().out
    last.unlink()
    train(tmp_path)
    assert (tmp_path / "runs/toy/latest/results.json").is_file()
