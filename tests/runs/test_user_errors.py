import io

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console

from src.runs.user_errors import user_errors
from src.signals import BadInput


def refuse(source: str) -> None:
    raise BadInput(source, "no channel [fpz] among [cz]", "name one with channel=")


def stumble() -> None:
    raise ZeroDivisionError


def said(error=None, config=None) -> str:
    """What a verb prints before it leaves with status 2."""
    stream = io.StringIO()
    with pytest.raises(SystemExit) as left, user_errors(Console(file=stream)):
        if error is not None:
            raise error
        instantiate(OmegaConf.create(config))
    assert left.value.code == 2
    return stream.getvalue()


def test_bad_input_is_one_line_and_keeps_its_brackets():
    error = BadInput("night.edf", "no channel [fpz] among [cz]", "name one with channel=")
    assert said(error) == f"error {error}\n"


def test_bad_input_is_found_inside_the_error_of_a_constructor():
    config = {"_target_": f"{__name__}.refuse", "source": "night.edf"}
    assert said(config=config) == "error night.edf: no channel [fpz] among [cz]; name one with channel=\n"


def test_a_key_that_was_not_given_is_asked_for():
    config = {"_target_": f"{__name__}.refuse", "source": "???"}
    assert said(config=config) == "error command line: source is not given; add source=…\n"


def test_an_error_of_our_own_keeps_its_traceback():
    with pytest.raises(InstantiationException), user_errors(Console(file=io.StringIO())):
        instantiate(OmegaConf.create({"_target_": f"{__name__}.stumble"}))
    with pytest.raises(ZeroDivisionError), user_errors(Console(file=io.StringIO())):
        stumble()
