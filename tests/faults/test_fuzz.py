"""Spoiled files of every kind: refused in one line or read, never a crash, never endless, never all the memory.

``FAULT_EXAMPLES`` is how many spoiled files each reader gets (``make test-faults``: 1000), ``FAULT_SEED`` draws them.
"""

import os
import resource
import warnings

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from src.signals import BadInput
from tests.faults.readers import READERS

EXAMPLES = int(os.environ.get("FAULT_EXAMPLES", "15"))
SEED = int(os.environ.get("FAULT_SEED", "0"))
SPARE = 2 << 30
"""Bytes that a reader of a file of some kilobytes may ask for."""
ACCEPTED = "accepted"
JUNK = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\x00" * 8, b"\xff" * 8, b"\x7f" * 4, b"nan", b"1e999", b"-1", b"../", b"\n", b'"', b"]"]),
)


class Specimen:
    """A reader, a file that it accepts, and the file's bytes; short when printed."""

    def __init__(self, name, folder):
        self.name, self.reader = name, READERS[name]
        self.path = self.reader.make(folder)
        self.whole = self.path.read_bytes()

    def __repr__(self):
        return f"<{self.name}, {len(self.whole)} bytes>"


@pytest.fixture(scope="module", params=READERS)
def specimen(request, tmp_path_factory):
    return Specimen(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def little_memory():
    """A header that claims a terabyte must not be believed."""
    with open("/proc/self/statm") as handle:
        used = int(handle.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def attempt(specimen, content):
    """What the user would see."""
    specimen.path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            specimen.reader.read(specimen.path)
    except BadInput as refusal:
        return str(refusal)
    finally:
        specimen.path.write_bytes(specimen.whole)
    return ACCEPTED


def test_the_unspoiled_file_is_read(specimen):
    assert attempt(specimen, specimen.whole) == ACCEPTED


def test_an_empty_file_is_refused(specimen):
    # An output without a manifest is simply not there.
    assert (attempt(specimen, b"") == ACCEPTED) == (specimen.name == "manifest")


@seed(SEED)
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_spoiled_file_is_read_or_refused_in_one_line(specimen, little_memory, data):
    spoiled = bytearray(specimen.whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(specimen.reader.head, len(specimen.whole)) - 1))
        junk = data.draw(JUNK)
        if data.draw(st.booleans()):
            spoiled[place : place + len(junk)] = junk
        else:
            spoiled[place:place] = junk
    if data.draw(st.integers(0, 3)) == 0:
        del spoiled[data.draw(st.integers(0, len(spoiled))) :]
    assert "\n" not in attempt(specimen, spoiled)
