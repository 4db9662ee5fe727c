import pytest
from jinja2 import UndefinedError

from src.reports.sleep_page import write_page

PAGE = {
    "title": "<b>", "subtitle": "", "origin": "", "banner": "", "classes": ["W"], "summary": [], "findings": [],
    "signal": "", "notes": "",
}  # fmt: skip


def test_texts_are_escaped_and_a_part_that_is_missing_is_an_error(tmp_path):
    (tmp_path / "night.png").write_bytes(b"png")
    text = write_page(tmp_path / "report.html", PAGE, tmp_path / "night.png").read_text()
    assert "&lt;b&gt;" in text
    assert "base64,cG5n" in text
    with pytest.raises(UndefinedError):
        write_page(tmp_path / "x.html", {k: v for k, v in PAGE.items() if k != "origin"}, tmp_path / "night.png")
