import json

import pytest

from src.storage.manifest import (
    MANIFEST,
    UNREADABLE,
    all_there,
    checksums,
    is_intact,
    is_ours,
    listed_files,
    read_manifest,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    """Two files and their manifest."""
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, {"facts": {"units": "uV", "n": 1}, "outputs": checksums(tmp_path)})
    return tmp_path


def test_what_is_written_is_read_intact(folder):
    manifest = read_manifest(folder)
    assert is_intact(manifest)
    assert all_there(folder, manifest)
    assert list(listed_files(folder)) == ["a", "sub/b"]


def test_one_flipped_bit_anywhere_in_a_manifest_is_noticed(folder):
    raw = (folder / MANIFEST).read_bytes()
    written = json.loads(raw)
    for place in range(8 * len(raw)):
        spoiled = bytearray(raw)
        spoiled[place // 8] ^= 1 << place % 8
        (folder / MANIFEST).write_bytes(spoiled)
        manifest = read_manifest(folder)
        # White space between two tokens may change into other white space: that is the same manifest.
        assert not manifest or not is_intact(manifest) or manifest == written, (place, bytes(spoiled))


def test_a_manifest_of_before_has_no_checksum_and_calls_the_step_stage(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": 1, "stage": "double", "outputs": {}}))
    manifest = read_manifest(tmp_path)
    assert is_intact(manifest)
    assert manifest["step"] == "double"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"outputs": []}', '{"outputs": {"a": 3}}', '{"name": "x"}', "\xff"])
def test_what_is_no_manifest_of_ours_lists_nothing(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    assert read_manifest(tmp_path) is UNREADABLE
    assert listed_files(tmp_path) is None


def test_a_file_is_ours_by_name_and_content(folder):
    listed = listed_files(folder)
    (folder / "sub" / "b").write_text("x/b/b")
    (folder / "c").write_text("a")
    (folder / "link").symlink_to(folder / "a")
    assert is_ours(folder, "a", listed["a"])
    assert not is_ours(folder, "sub/b", listed["sub/b"])
    for name in ("nowhere", "../a", "/etc/passwd", "link", "\0", "sub"):
        assert not is_ours(folder, name, listed["a"])
