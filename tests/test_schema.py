import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from omegaconf import MissingMandatoryValue

from src import schema

schema.register()

STEP = "# @package _global_\ndefaults: [spectrogram_schema]\n"


@pytest.fixture
def composed(tmp_path, repository):
    """Compose a verb's configuration with one more folder of groups before the repository's own."""
    (tmp_path / "preprocess").mkdir()
    (tmp_path / "preprocess" / "probe.yaml").write_text(STEP)
    (tmp_path / "preprocess" / "typo.yaml").write_text(STEP + "wrokers: 4\n")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "probe.yaml").write_text("# @package _global_\nname: probe\n")
    (tmp_path / "experiment" / "typo.yaml").write_text("# @package _global_\nname: probe\npatiance: 3\n")

    def run(name, *overrides):
        search = f"hydra.searchpath=[file://{tmp_path}]"
        return compose(name, overrides=[search, *overrides])

    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        yield run


@pytest.mark.parametrize(
    ("verb", "choice", "key"), [("preprocess", "preprocess=typo", "wrokers"), ("train", "experiment=typo", "patiance")]
)
def test_a_typo_in_a_file_fails_at_composition(composed, verb, choice, key):
    with pytest.raises(ConfigCompositionException) as caught:
        composed(verb, choice)
    assert key in str(caught.value) + str(caught.value.__cause__)


def test_inputs_and_outputs_have_no_default(composed):
    cfg = composed("preprocess", "preprocess=probe")
    for key in ("input_dir", "output_dir"):
        with pytest.raises(MissingMandatoryValue):
            cfg[key]


def test_registering_twice_is_harmless():
    before = set(ConfigStore.instance().repo)
    schema.register()
    assert set(ConfigStore.instance().repo) == before
