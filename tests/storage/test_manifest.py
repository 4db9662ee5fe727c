import hashlib
import json
import platform
import re

import numpy as np
import pytest
import xxhash

from src.signals import BadInput
from src.storage import manifest
from src.storage.manifest import (
    MANIFEST,
    UNREADABLE,
    canonical_json,
    checksums,
    digest_of,
    file_digest,
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
    found = read_manifest(folder)
    assert is_intact(found)
    assert list(listed_files(folder)) == ["a", "sub/b"]
    assert all(is_ours(folder, name, records) for name, records in listed_files(folder).items())


def test_a_flipped_bit_in_any_byte_of_a_manifest_is_noticed(folder):
    raw = (folder / MANIFEST).read_bytes()
    written = json.loads(raw)
    for place in range(len(raw)):
        spoiled = bytearray(raw)
        spoiled[place] ^= 1 << place % 8
        (folder / MANIFEST).write_bytes(spoiled)
        found = read_manifest(folder)
        # White space between two tokens may change into other white space: that is the same manifest.
        assert not found or not is_intact(found) or found == written, (place, bytes(spoiled))


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


def test_a_files_digest_is_that_of_its_content_whatever_was_there_before(tmp_path):
    path = tmp_path / "a"
    for text in (b"one", b"two", b"one"):
        path.write_bytes(text)
        assert file_digest(path) == hashlib.sha256(text).hexdigest()
        assert file_digest(path, "xxh3_128") == xxhash.xxh3_128(text).hexdigest()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        file_digest(tmp_path / "nowhere")


def test_a_plain_value_has_one_text():
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == canonical_json({"a": "é", "b": [1, 2.5, None]})
    assert json.loads(canonical_json({"a": "é"})) == {"a": "é"}
    assert digest_of({"a": 1}) != digest_of({"a": 2})


@pytest.mark.parametrize("value", [float("nan"), np.float32(1), {1, 2}])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        digest_of(value)


@pytest.fixture(autouse=True)
def forget():
    """What is found out once per process is found out anew."""
    manifest.provenance.cache_clear()
    yield
    manifest.provenance.cache_clear()


def test_it_names_the_commit(repository):
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    code = manifest.provenance()["code"]
    assert re.fullmatch(r"[0-9a-f]{40}", code["commit"])
    assert isinstance(code["dirty"], bool)


def test_without_git_it_says_that_it_does_not_know(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert manifest.provenance()["code"] == {"commit": None, "dirty": None}


def test_it_names_python_and_the_packages_that_matter(monkeypatch):
    monkeypatch.setattr(manifest, "PACKAGES", ("numpy", "no-such-package"))
    found = manifest.provenance()
    assert found["python"] == platform.python_version()
    assert found["packages"] == {"numpy": np.__version__}
