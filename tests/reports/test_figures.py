import matplotlib.image
import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from src.reports import figures
from src.reports.figures import saved, titled, write_page


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_the_same_figure_makes_the_same_file(tmp_path, suffix):
    def drawn(name):
        figure = Figure(figsize=(2, 1))
        titled(figure, "a [b] $")
        return saved(figure, tmp_path / f"{name}.{suffix}", dpi=60)

    assert drawn("a").read_bytes() == drawn("b").read_bytes()
    assert suffix == "pdf" or matplotlib.image.imread(drawn("a")).shape[:2] == (60, 120)


def test_the_middle_of_a_title_that_is_too_long_is_left_out(tmp_path):
    figure = Figure(figsize=(3, 1))
    titled(figure, "x" * 230 + " – C3")
    saved(figure, tmp_path / "a.png")
    assert figure.get_suptitle() == "x" * 13 + "…" + "x" * 8 + " – C3"


def test_a_page_holds_its_picture_and_misses_no_value(tmp_path, monkeypatch):
    (tmp_path / "x.html").write_text("<p>{{ text }}</p><img src='{{ picture|png }}'>")
    monkeypatch.setattr(figures, "TEMPLATES", tmp_path)
    values = {"template": "x", "text": "a <b>", "picture": b"png"}
    page = write_page(tmp_path / "page.html", values).read_text()
    assert page == "<p>a &lt;b&gt;</p><img src='data:image/png;base64,cG5n'>\n"
    with pytest.raises(UndefinedError, match="text"):
        write_page(tmp_path / "page.html", {"template": "x", "picture": b""})
