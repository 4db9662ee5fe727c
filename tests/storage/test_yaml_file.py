import pytest

from src.signals import BadInput
from src.storage.yaml_file import read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_plain_values_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text("noise: [1, 2.5]\nname: Global\n")
    assert read_yaml(tmp_path / "c.yaml") == {"noise": [1, 2.5], "name": "Global"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "aliases are not allowed"),
        ("x: !!python/object/apply:os.system [ls]", "cannot be read as YAML"),
        ("[" * 5000, "cannot be read as YAML"),
        ("- a", "holds no mapping"),
        ("a: " + "x" * (1 << 20), "is larger than"),
        ("a: \x00", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, problem):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(BadInput, match=problem):
        read_yaml(tmp_path / "c.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_yaml(tmp_path / "c.yaml")
