import platform
import re

import numpy as np
import pytest

from src.storage import provenance


@pytest.fixture(autouse=True)
def forget():
    """What is found out once per process is found out anew."""
    provenance._git_state.cache_clear()
    yield
    provenance._git_state.cache_clear()


def test_it_names_the_commit(repository):
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    code = provenance.provenance()["code"]
    assert re.fullmatch(r"[0-9a-f]{40}", code["commit"])
    assert isinstance(code["dirty"], bool)


def test_without_git_it_says_that_it_does_not_know(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.provenance()["code"] == {"commit": None, "dirty": None}


def test_it_names_python_and_the_packages_that_matter(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package"))
    provenance._package_versions.cache_clear()
    found = provenance.provenance()
    provenance._package_versions.cache_clear()
    assert found["python"] == platform.python_version()
    assert found["packages"] == {"numpy": np.__version__}
