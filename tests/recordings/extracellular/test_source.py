"""What a user says of a recording can be given at the command line."""

from omegaconf import OmegaConf

from src.preprocess.lfp.parameters import SpectrogramParams


def test_options_are_keys_below_source():
    keys = ["input_dir=a", "output_dir=b", "source.fs_hz=1000", "source.key=a.b", "source.channels=4"]
    given = OmegaConf.from_dotlist(keys)
    params = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SpectrogramParams), given))
    assert isinstance(params, SpectrogramParams)
    assert (params.source.fs_hz, params.source.key, params.source.channels) == (1000.0, "a.b", 4)
    assert params.source.dtype is None
