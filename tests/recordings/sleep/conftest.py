"""A folder with a recording, for scorings beside it."""

import pytest

from tests.recordings.sleep.made_scorings import recording


@pytest.fixture
def folder(tmp_path):
    """A folder with ``n.edf``, half an hour from 23:00 on 2020-01-01."""
    recording(tmp_path / "n.edf")
    return tmp_path
