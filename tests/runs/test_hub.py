"""A bundle goes to a stand-in of the Hugging Face Hub and comes back the same; a changed one is refused."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from src.models.bundle import load_bundle
from src.runs.hub import card, fetch, main, push
from src.signals import BadInput
from tests.conftest import REPOSITORY

pytest.importorskip("huggingface_hub")
BUNDLE = REPOSITORY / "pretrained" / "sleep_human"
SHA = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """The calls of the Hub's API that creating, committing and downloading need."""

    files: dict[str, bytes]

    def answer(self, value, status=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/repos/create"):
            self.answer({"url": f"http://{self.headers['Host']}/lab/net", "id": "lab/net"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/lab/net/commit/{SHA}"
            self.answer({"success": True, "commitUrl": url, "commitOid": SHA})
        else:
            self.answer({"valid": True})

    def do_GET(self):
        if found := re.search(r"/resolve/[^/]+/(.+)$", self.path):
            content = self.files.get(found[1])
            etag = '"' + hashlib.sha256(content or b"").hexdigest() + '"'
            self.answer(content or b"", 200 if content is not None else 404, X_Repo_Commit=SHA, ETag=etag)
        elif self.files and "lab/net" in self.path:
            if "/tree/" in self.path:
                rows = [{"type": "file", "path": n, "size": len(c), "oid": SHA} for n, c in self.files.items()]
                self.answer(rows)
            else:
                self.answer({"id": "lab/net", "sha": SHA, "siblings": [{"rfilename": name} for name in self.files]})
        else:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The files of the stand-in, which is reached as the Hub would be."""
    handler: Any = type("OwnHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield handler.files
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_bundle_is_pushed_with_a_card_and_fetched_with_its_checksums(hub, tmp_path, capsys):
    assert main(["push", str(BUNDLE), "lab/net"]) == 0
    assert capsys.readouterr().out.strip().endswith("/lab/net")
    assert sorted(hub) == ["README.md", "bundle.json", "manifest.json", "model.safetensors"]
    assert "python infer.py bundle=hf:lab/net" in hub["README.md"].decode()
    folder = fetch("hf:lab/net", tmp_path)
    assert load_bundle(folder).weights_sha256 == load_bundle(BUNDLE).weights_sha256
    assert load_bundle(folder).network()
    hub["bundle.json"] = hub["bundle.json"].replace(b'"subjects"', b'"subjectz"')
    with pytest.raises(BadInput, match="checksum differs"):
        fetch("hf:lab/net", tmp_path / "again")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_what_is_not_there_or_no_name_is_said_in_one_line(hub, tmp_path):
    with pytest.raises(BadInput, match="hf:lab/absent: the Hub does not answer as expected"):
        fetch("hf:lab/absent", tmp_path)
    for name in ("hf:absent", "hf:a/b/c", "hf:../x"):
        with pytest.raises(BadInput, match="is no name of a repository"):
            fetch(name, tmp_path)
    with pytest.raises(BadInput, match="holds no bundle"):
        push(tmp_path, "lab/net")


def test_the_card_says_what_the_network_was_trained_on():
    text = card(load_bundle(BUNDLE), "lab/net")
    assert "trained on recordings: Sleep-EDF Expanded" in text
    assert "test/kappa" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_no_network_is_said_as_such(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"hf:lab/net: the Hub cannot be reached; check the network"):
        fetch("hf:lab/net", tmp_path)
