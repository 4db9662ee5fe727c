import hashlib
import json

import numpy as np
import pytest
import xxhash

from src.signals import BadInput
from src.storage.fingerprint import canonical_json, digest_of, file_digest


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
