import torch
from omegaconf import OmegaConf

from src.runs.assemble import adopt_checkpoint, assemble

CONFIG = {
    "seed": 3,
    "datamodule": {"_target_": "tests.runs.toy.Blobs", "seed": 3, "batch_size": 8},
    "model": {"_target_": "tests.runs.toy.Classifier", "lr": 0.1},
}


def test_the_same_seed_gives_the_same_weights_and_the_statistics(tmp_path):
    data, first = assemble(OmegaConf.create(CONFIG))
    _, second = assemble(OmegaConf.create(CONFIG))
    _, other = assemble(OmegaConf.create(CONFIG | {"seed": 4}))
    key = "network.0.weight"
    assert torch.equal(first.state_dict()[key], second.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])
    assert torch.equal(first.mean, torch.as_tensor(data.statistics()["mean"]))
    torch.save({"state_dict": first.state_dict()}, tmp_path / "best.ckpt")
    adopt_checkpoint(other, tmp_path / "best.ckpt")
    assert torch.equal(first.state_dict()[key], other.state_dict()[key])
