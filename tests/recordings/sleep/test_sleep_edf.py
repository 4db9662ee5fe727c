import hashlib
import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from src.recordings.sleep.nights import discover
from src.recordings.sleep.sleep_edf import COHORTS, SleepEdfParams, compare, fetch, night_counts, wanted
from src.signals import BadInput
from src.simulate.sleep import write_night


class Archive(SimpleHTTPRequestHandler):
    """Files with ranges, as PhysioNet serves them; remembers what was asked for."""

    asked: ClassVar[list[tuple[str, int]]] = []
    cut = 0

    def do_GET(self):
        path = self.translate_path(self.path)
        wanted_from = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
        type(self).asked.append((self.path.rpartition("/")[2], wanted_from))
        try:
            with open(path, "rb") as handle:
                content = handle.read()
        except OSError:
            self.send_error(404)
            return
        rest = content[wanted_from:]
        if not rest:
            self.send_error(416)
            return
        self.send_response(206 if wanted_from else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if type(self).cut and path.endswith("PSG.edf"):
            self.wfile.write(rest[: type(self).cut])
            type(self).cut = 0
            self.close_connection = True
            return
        self.wfile.write(rest)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights")
    for subject in (0, 1, 25):
        write_night(folder, subject, 1, seed=0, hours=2.0)
    return folder


@pytest.fixture
def archive(tmp_path, nights):
    root = tmp_path / "archive"
    cassette = root / "sleep-cassette"
    shutil.copytree(nights, cassette)
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()} sleep-cassette/{p.name}" for p in sorted(cassette.iterdir())
    ]
    (root / "SHA256SUMS.txt").write_text("\n".join([*lines, f"{'0' * 64} sleep-telemetry/ST7011J0-PSG.edf"]) + "\n")
    Archive.asked, Archive.cut = [], 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Archive, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", root
    server.shutdown()
    server.server_close()


def get(base_url, out, **changed):
    return SleepEdfParams(output_dir=str(out), base_url=base_url, workers=1, **changed).run()


def test_a_cohort_is_fetched_checked_and_counted_once(archive, tmp_path, capsys):
    base_url, root = archive
    out = tmp_path / "out"
    assert get(base_url, out).exit_code == 0
    fetched = sorted((out / "sleep-cassette").glob("*.edf"))
    assert [p.name[:6] for p in fetched] == ["SC4001", "SC4001", "SC4011", "SC4011"]
    for path in fetched:
        assert path.read_bytes() == (root / "sleep-cassette" / path.name).read_bytes()
    report = json.loads((out / "counts.json").read_text())
    assert report["nights"] == 2
    assert report["agrees"] is None
    assert "incomplete" in capsys.readouterr().out
    Archive.asked.clear()
    assert get(base_url, out).exit_code == 0
    assert [name for name, _ in Archive.asked] == ["SHA256SUMS.txt"]


def test_a_broken_download_goes_on_where_it_stopped(archive, tmp_path):
    base_url, _ = archive
    out = tmp_path / "out"
    Archive.cut = 100_000
    first = get(base_url, out)
    assert first.exit_code
    assert "goes on where it stopped" in str(first.failures)
    assert not list((out / "sleep-cassette").glob("SC4001E0*"))
    Archive.asked.clear()
    assert get(base_url, out).exit_code == 0
    assert any(name == "SC4001E0-PSG.edf" and 0 < first <= 100_000 for name, first in Archive.asked)
    assert not list((out / "sleep-cassette").glob(".*part"))


def test_a_wrong_checksum_leaves_nothing(archive, tmp_path):
    base_url, _ = archive
    with pytest.raises(BadInput, match="another checksum"):
        fetch(base_url + "sleep-cassette/SC4001E0-PSG.edf", "0" * 64, tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_an_existing_folder_needs_no_network(archive, tmp_path):
    assert get("http://127.0.0.1:1/", tmp_path / "out", input_dir=str(archive[1])).exit_code == 0
    with pytest.raises(BadInput, match="give input_dir"):
        get("http://127.0.0.1:1/", tmp_path / "out")
    with pytest.raises(BadInput, match="sc20, sc78"):
        get("http://127.0.0.1:1/", tmp_path / "out", cohort="sc30")


def test_cohorts_are_told_apart_by_subject():
    assert wanted("sleep-cassette/SC4191E0-PSG.edf", "sc20")
    assert not wanted("sleep-cassette/SC4201E0-PSG.edf", "sc20")
    assert wanted("SC4822GC-Hypnogram.edf", "sc78")
    assert not wanted("sleep-telemetry/ST7011J0-PSG.edf", "sc78")
    assert not wanted("RECORDS", "sc78")


def test_only_a_complete_cohort_is_held_against_the_literature():
    published = COHORTS["sc20"].published
    rest = [dict.fromkeys(published, 0)] * 38
    assert compare([dict(published), *rest], "sc20")["agrees"] is True
    assert compare([{**published, "N2": 17_700}, *rest], "sc20")["agrees"] is False
    assert compare([dict(published)], "sc20")["agrees"] is None


def test_wake_is_counted_half_an_hour_around_sleep(archive):
    (first, *_) = discover("sleep_edf", archive[1])
    counts = night_counts(first)
    assert sum(counts.values()) <= 240
    assert counts["N2"] > 0
