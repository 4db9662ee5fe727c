"""What libraries raise over files of the world names the file and says what to do."""

import pytest

from src.signals import BadInput
from src.storage.foreign_files import absent, explained


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FileNotFoundError(), r"x\.mat: does not exist; check the path"),
        (IsADirectoryError(), r"x\.mat: is a folder"),
        (PermissionError(), "permission denied"),
        (ImportError("no isx", name="isx"), r"a package is missing \(no isx\); pip install isx"),
        (ValueError("a\n b"), r"cannot be read \(a b\); copy or download it again"),
        (EOFError(), r"cannot be read \(EOFError\)"),
        (BadInput("other", "is wrong", "correct it"), "other: is wrong; correct it"),
    ],
)
def test_an_error_becomes_a_line(error, says):
    with pytest.raises(BadInput, match=says), explained("x.mat"):
        raise error


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("nigth.edf", r"did you mean .*night\.edf\?"),
        ("x", "check the path$"),
        ("a/b.edf", "check the path: .* has no a"),
    ],
)
def test_a_path_that_does_not_exist_is_answered_with_the_nearest_name(tmp_path, typed, hint):
    (tmp_path / "night.edf").write_bytes(b"")
    with pytest.raises(BadInput, match=f"does not exist; {hint}"):
        raise absent(tmp_path / typed)
