"""A format is recognised by names and first bytes; nothing is opened."""

import pytest

from src.recordings.extracellular.formats import vendor_format
from tests.recordings.extracellular.vendor_files import counts, write_open_ephys, write_spikeglx


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a.rec", "SpikeGadgets .rec"),
        ("a.NS5", "Blackrock .ns1–.ns6"),
        ("a.plx", "Plexon .plx"),
        ("a.rhs", "Intan .rhd/.rhs"),
        ("a.dat", None),
        ("a.bin", None),
        ("a.txt", None),
    ],
)
def test_a_file(tmp_path, name, known):
    (tmp_path / name).write_bytes(b"123")
    found = vendor_format(tmp_path / name)
    assert (found and found.name) == known


def test_an_edf_file_called_rec_is_no_lfp(tmp_path):
    (tmp_path / "a.rec").write_bytes(b"0       X X X X")
    assert vendor_format(tmp_path / "a.rec") is None


def test_a_folder(tmp_path):
    write_spikeglx(tmp_path / "glx", counts(10), "ap")
    write_open_ephys(tmp_path / "oe", counts(10))
    for name, known in (("glx", "SpikeGLX"), ("oe", "Open Ephys binary")):
        assert vendor_format(tmp_path / name).name.startswith(known)
    assert vendor_format(tmp_path) is None
    assert vendor_format(tmp_path / "absent") is None
