from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src import schema
from src.preprocess.spikes.parameters import SpikeLookalikesParams


def test_the_composed_configuration_is_the_parameters(repository):
    schema.register()
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        cfg = compose("preprocess", ["preprocess=spike_lookalikes", "output_dir=out", "duration_s=3"])
    assert OmegaConf.to_object(cfg) == SpikeLookalikesParams(output_dir="out", duration_s=3.0)
