from omegaconf import OmegaConf

from src.preprocess.spikes.parameters import SpikeLookalikesParams
from tests.composed import composed


def test_the_composed_configuration_is_the_parameters():
    cfg = composed("preprocess", "preprocess=spike_lookalikes", "output_dir=out", "duration_s=3")
    assert OmegaConf.to_object(cfg) == SpikeLookalikesParams(output_dir="out", duration_s=3.0)
