"""Sessions and shanks are found, missing and surplus ones named, none guessed."""

import pytest

from src.recordings.extracellular.sessions import find_sessions
from src.signals import BadInput
from tests.recordings.extracellular.vendor_files import counts, write_neuroscope, write_open_ephys, write_spikeglx


def lay(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_a_session_and_its_shanks(tmp_path):
    lay(tmp_path, *(f"rat1.day2.rec/low_freq/rat1_sh{k}_lfp_traces.npz" for k in (0, 3, 11)))
    (session,) = find_sessions(tmp_path / "rat1.day2.rec")
    assert (session.name, list(session.shanks), session.problem) == ("rat1", [0, 3, 11], None)
    assert session.notes == ("no traces for shanks 1, 2, 4, 5, 6, 7, 8, 9, 10",)


@pytest.mark.parametrize("start", [".", "batch", "batch/a.rec", "batch/a.rec/low_freq"])
def test_wherever_one_starts(tmp_path, start):
    lay(tmp_path, "batch/a.rec/low_freq/a_sh0_lfp_traces.npz", "batch/notes.txt", ".hidden/b.rec/low_freq/x")
    (session,) = find_sessions(tmp_path / start)
    assert (session.name, list(session.shanks)) == ("a", [0])


def test_many_sessions_and_loose_files(tmp_path):
    lay(tmp_path, "a.rec/low_freq/a_sh0_lfp_traces.npz", "deep/er/b.rec/low_freq/b_sh1_lfp_traces.h5")
    lay(tmp_path, "loose/c_sh0_lfp_traces.npy", "loose/d_x_sh2_lfp_traces.hdf5")
    assert [(s.name, list(s.shanks)) for s in find_sessions(tmp_path)] == [
        ("a", [0]),
        ("b", [1]),
        ("c", [0]),
        ("d_x", [2]),
    ]
    (single,) = find_sessions(tmp_path / "loose/d_x_sh2_lfp_traces.hdf5")
    assert (single.name, single.notes) == ("d_x", ())


def test_two_files_for_one_shank_are_both_kept(tmp_path):
    lay(
        tmp_path,
        *(f"a.rec/low_freq/a_sh{k}_lfp_traces.{kind}" for k, kind in (("0", "npz"), ("0", "npy"), ("00", "npz"))),
    )
    (session,) = find_sessions(tmp_path)
    assert len(session.shanks[0]) == 3


def test_files_of_another_session_are_left_aside(tmp_path):
    lay(tmp_path, "a.rec/low_freq/a_sh0_lfp_traces.npz", "a.rec/low_freq/b_sh1_lfp_traces.npz")
    (session,) = find_sessions(tmp_path)
    assert list(session.shanks) == [0]
    assert "b_sh1_lfp_traces.npz" in session.notes[0]


def test_full_stem_where_the_files_have_it(tmp_path):
    lay(
        tmp_path,
        "2023.01.05.rec/low_freq/2023.01.05_sh0_lfp_traces.npz",
        "2023.01.06.rec/low_freq/2023_sh0_lfp_traces.npz",
    )
    assert [s.name for s in find_sessions(tmp_path)] == ["2023.01.05", "2023"]


def test_same_name_twice_is_a_problem_of_both(tmp_path):
    lay(tmp_path, *(f"{day}/a.rec/low_freq/a_sh0_lfp_traces.npz" for day in (1, 2)))
    assert all("also named a" in str(s.problem) for s in find_sessions(tmp_path))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["a.rec/readme"], "no low_freq folder and no recording"),
        (["a.rec/low_freq/readme"], "no LFP traces"),
        (["a.rec/low_freq/b_sh0_lfp_traces.npz"], "only b_sh0"),
    ],
)
def test_sessions_without_traces(tmp_path, files, says):
    lay(tmp_path, *files)
    (session,) = find_sessions(tmp_path)
    assert says in str(session.problem)


def test_raw_files(tmp_path):
    lay(tmp_path, "a.b.rec", "c.rec/c.rec", "d.rec/d.rec", "d.rec/low_freq/d_sh0_lfp_traces.npz")
    lay(tmp_path, "e/e.part2.rec", "e/e.rec")
    a, c, d, e = find_sessions(tmp_path)
    assert (a.name, a.raw, c.raw) == ("a", tmp_path.resolve() / "a.b.rec", tmp_path.resolve() / "c.rec/c.rec")
    assert (d.raw, list(d.shanks)) == (None, [0])
    assert (e.name, e.raw, e.notes) == ("e", tmp_path.resolve() / "e/e.rec", ())


def test_of_files_of_one_recording_the_one_at_the_lfps_rate(tmp_path):
    for suffix in (".dat", ".lfp"):
        write_neuroscope(tmp_path / "rat1", counts(100), suffix, [[0, 1], [2, 3]])
    write_spikeglx(tmp_path / "run_g0", counts(100), "ap")
    write_open_ephys(tmp_path / "day2", counts(100))
    found = find_sessions(tmp_path)
    assert [(s.name, s.raw.name) for s in found] == [("day2", "day2"), ("rat1", "rat1.lfp"), ("run_g0", "run_g0")]
    assert found[1].notes == ("rat1.lfp is read; rat1.dat left aside",)
    assert found[1].shank_numbers({}) == [0, 1]
    (raw,) = find_sessions(tmp_path / "rat1" / "rat1.dat")
    assert raw.raw == tmp_path.resolve() / "rat1/rat1.dat"


def test_nothing_there(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        find_sessions(tmp_path / "absent")
    with pytest.raises(BadInput, match="no recording session"):
        find_sessions(tmp_path)
