import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.preprocess.cascade.download import (
    EMBEDDED_NAME,
    LARGEST_ZIP,
    SHIPPED_DIR,
    SUBSTITUTES,
    find_package,
    names_for_rate,
    package_for_rate,
)
from src.preprocess.cascade.package import open_package
from src.signals import BadInput
from src.storage.step import fingerprint
from tests.preprocess.cascade.cascade_packages import TINY, write_package

MODEL = "Tiny_2Hz"


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if (body := self.server.files.get(self.path)) is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.announced.get(self.path, len(body))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A web server on this machine: what it has, and what it pretends about the size."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, int] = {}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def offer(self, archive: bytes) -> str:
        self.files["/model.zip"] = archive
        self.files["/catalogue.yaml"] = f"{MODEL}:\n  Link: {self.url}/model.zip\n  Info:\n".encode()
        return f"{self.url}/catalogue.yaml"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        (thread := threading.Thread(target=server.serve_forever, args=(0.01,))).start()
        yield server
        server.shutdown()
        thread.join()


def zipped(folder: Path, prefix: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, prefix + path.name)
    return buffer.getvalue()


def with_member(archive: bytes, name: str, content: bytes = b"x", attributes: int = 0) -> bytes:
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = attributes
        file.writestr(info, content)
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return zipped(write_package(tmp_path / "source"))


@pytest.mark.parametrize("prefix", ["", "Tiny_2Hz/", "a/b/"])
def test_a_package_is_fetched_once_and_recorded(tmp_path: Path, server: Server, prefix: str) -> None:
    archive = zipped(source := write_package(tmp_path / "source"), prefix)
    catalogue = server.offer(archive)
    folder = find_package(MODEL, tmp_path / "models", catalogue_url=catalogue)
    assert open_package(folder).sha256() == open_package(source).sha256()
    (copy := tmp_path / "copy.zip").write_bytes(archive)
    record = json.loads((folder / "download.json").read_text())
    assert record["zip_sha256"] == fingerprint(copy)
    assert record["zip_bytes"] == len(archive)
    server.requests.clear()
    assert find_package(MODEL, tmp_path / "models", catalogue_url=catalogue) == folder
    assert server.requests == []


def assert_nothing_left(models: Path) -> None:
    assert [path.name for path in models.iterdir() if not path.name.endswith(".lock")] == []


def with_a_wrong_byte(archive: bytes) -> bytes:
    damaged = bytearray(archive)
    damaged[archive.find(b"Ensemble_0.h5") + 200] ^= 0xFF
    return bytes(damaged)


def without(archive: bytes, end: str) -> bytes:
    """The archive without the members whose names end so."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as whole, zipfile.ZipFile(buffer, "w") as file:
        for member in whole.namelist():
            if not member.endswith(end):
                file.writestr(member, whole.read(member))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spoiled", "problem"),
    [
        *(
            (partial(with_member, name=name), "outside its folder")
            for name in ("../evil.h5", "/etc/evil.h5", "a/../../evil.h5", "..\\evil.h5", "C:evil.h5")
        ),
        (partial(with_member, name="evil.h5", content=b"/etc/passwd", attributes=0o120777 << 16), "outside its folder"),
        (partial(with_member, name="run.py"), "belongs to no CASCADE model"),
        (lambda archive: archive[: len(archive) // 2], "damaged"),
        (lambda archive: archive[: int(0.99 * len(archive))], "damaged"),
        (with_a_wrong_byte, "damaged"),
        (partial(without, end=".yaml"), r"0 times config\.yaml"),
        (partial(without, end="_4_Ensemble_1.h5"), r"no whole package .has 1 of 2 networks for noise level 4"),
    ],
)
def test_a_zip_file_that_is_no_package_leaves_nothing(
    tmp_path: Path, server: Server, archive, spoiled, problem
) -> None:
    catalogue = server.offer(spoiled(archive))
    with pytest.raises(BadInput, match=problem):
        find_package(MODEL, tmp_path / "models", catalogue_url=catalogue)
    assert_nothing_left(tmp_path / "models")
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("wrong", [100, LARGEST_ZIP])
def test_a_wrong_size_is_refused(tmp_path: Path, server: Server, archive: bytes, wrong: int) -> None:
    catalogue = server.offer(archive)
    server.announced["/model.zip"] = len(archive) + wrong
    with pytest.raises(BadInput, match=r"sends more than|could not be downloaded|broke off"):
        find_package(MODEL, tmp_path / "models", catalogue_url=catalogue)
    assert_nothing_left(tmp_path / "models")


def test_without_a_network_the_message_says_where_to_put_the_package(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        find_package(MODEL, tmp_path / "models", catalogue_url="http://127.0.0.1:9/catalogue.yaml")
    for what in (str(tmp_path / "models" / MODEL), "cascade_model=embedded", "engine=oasis"):
        assert what in str(caught.value)


def test_an_unknown_model_is_named(tmp_path: Path, server: Server, archive: bytes) -> None:
    catalogue = server.offer(archive)
    with pytest.raises(BadInput, match="has no model Huge_9Hz"):
        find_package("Huge_9Hz", tmp_path / "models", catalogue_url=catalogue)
    with pytest.raises(BadInput, match="has no model Tiny_2hz; the nearest names are Tiny_2Hz"):
        find_package("Tiny_2hz", tmp_path / "models", catalogue_url=catalogue)


@pytest.mark.parametrize(("typed", "near"), [("embeded", "embedded"), ("Embedded", "embedded"), ("autp", "auto")])
def test_a_mistyped_word_is_answered_without_a_download(tmp_path: Path, typed: str, near: str) -> None:
    with pytest.raises(BadInput, match=f"is no CASCADE model; .*; did you mean cascade_model={near}"):
        find_package(typed, tmp_path / "models", catalogue_url="http://127.0.0.1:9/never-asked")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["", "..", "../models", "a/b", "a\\b", ".hidden"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="no name of a CASCADE model"):
        find_package(name, tmp_path, catalogue_url="http://127.0.0.1:9/")


def test_models_that_fit_a_rate(tmp_path: Path) -> None:
    write_package(tmp_path)
    for name in ("Recipe_only_2.1Hz", "Other_7.5Hz_x", "No_rate"):
        write_package(tmp_path, replace(TINY, model_name=name))
    assert names_for_rate(tmp_path, 2.0, 0.05)[:2] == ["Recipe_only_2.1Hz", "Tiny_2Hz"]
    assert names_for_rate(tmp_path, 7.2, 0.05)[0] == "Other_7.5Hz_x"
    assert names_for_rate(tmp_path, 50, 0.05) == []


def test_a_folder_of_the_users_is_never_touched(tmp_path: Path, server: Server, archive: bytes) -> None:
    catalogue = server.offer(archive)
    (folder := tmp_path / "models" / MODEL).mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds notes\.txt but no config\.yaml, and is not overwritten"):
        find_package(MODEL, tmp_path / "models", catalogue_url=catalogue)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_a_local_zip_is_installed_once_and_a_changed_one_is_refused(tmp_path: Path, archive: bytes) -> None:
    (local := tmp_path / "Mine_2Hz.zip").write_bytes(archive)
    folder = find_package(local, tmp_path / "models")
    assert folder == tmp_path / "models" / "Mine_2Hz"
    assert find_package(str(local), tmp_path / "models") == folder
    assert find_package(folder, tmp_path / "elsewhere") == folder
    local.write_bytes(with_member(archive, "more.txt"))
    with pytest.raises(BadInput, match=r"does not come from Mine_2Hz\.zip"):
        find_package(local, tmp_path / "models")
    with pytest.raises(BadInput, match="does not exist"):
        find_package(tmp_path / "absent.zip", tmp_path / "models")


def test_a_mirror_is_asked_instead_of_the_catalogue(tmp_path: Path, server: Server, archive: bytes) -> None:
    server.files[f"/mirror/{MODEL}.zip"] = archive
    find_package(MODEL, tmp_path / "models", models_url=f"{server.url}/mirror/")
    assert server.requests == [f"/mirror/{MODEL}.zip"]


def test_the_nearest_rate_wins_and_the_embedded_package_is_no_candidate(tmp_path: Path) -> None:
    write_package(tmp_path)
    write_package(tmp_path, replace(TINY, model_name="Fast_400Hz", sampling_rate_hz=400.0))
    write_package(tmp_path, replace(TINY, model_name=EMBEDDED_NAME, sampling_rate_hz=333.0))
    assert package_for_rate(330.0, tmp_path).name == "Fast_400Hz"


@pytest.mark.parametrize(
    ("fs_hz", "rate"), [(1.9, 2.0), (3.1, 2.0), (7.7, 7.5), (10.0, 7.5), (15.0, 7.5), (20.0, 30.0), (31.0, 30.0)]
)
def test_a_recording_gets_the_shipped_model_of_the_nearest_rate(tmp_path: Path, fs_hz: float, rate: float) -> None:
    folder = package_for_rate(fs_hz, tmp_path)
    assert folder.name.startswith("Recorded_EXC_")
    assert open_package(folder).config.sampling_rate_hz == rate


@pytest.mark.parametrize("folder", sorted(p.parent for p in SHIPPED_DIR.glob("*/config.yaml")), ids=lambda p: p.name)
def test_shipped_packages_are_whole_and_have_a_card(folder: Path) -> None:
    package = open_package(folder).check_members()
    assert package.config.model_name == folder.name
    card = (folder / "README.md").read_text()
    for word in ("trained on", "indicators", "licence", "protocol"):
        assert f"| {word} |" in card


def test_the_shipped_package_stands_in_for_a_published_one_that_cannot_be_had(tmp_path: Path) -> None:
    for name, shipped in SUBSTITUTES.items():
        found = find_package(name, tmp_path, catalogue_url="http://127.0.0.1:9/nothing")
        assert found == SHIPPED_DIR / shipped
        write_package(tmp_path, replace(TINY, model_name=name))
        assert find_package(name, tmp_path) == tmp_path / name
    assert find_package("embedded", tmp_path) == SHIPPED_DIR / EMBEDDED_NAME
