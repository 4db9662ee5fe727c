import io
from typing import Any

import pytest
from rich.console import Console

from src.reports.tables import ResultsTable
from src.storage import progress
from src.storage.progress import batch_progress, job_progress, say, show


def console(terminal: bool) -> Any:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def test_a_terminal_shows_a_bar_and_the_steps_of_the_job():
    screen = console(terminal=True)
    with batch_progress("nights [1]", 2, screen) as done:
        with job_progress("rat1/sh0 [x]", 4, step_bytes=10_000_000) as advance:
            advance()
            advance(0.25)
        done()
    printed = screen.file.getvalue()
    assert "nights [1]" in printed
    assert "rat1/sh0 [x]" in printed
    assert "1/2" in printed


@pytest.mark.parametrize(("every_s", "lines"), [(0.0, 4), (30.0, 0)])
def test_elsewhere_a_line_is_printed_at_most_every_half_minute(monkeypatch, every_s, lines):
    monkeypatch.setattr(progress, "EVERY_S", every_s)
    log = console(terminal=False)
    with batch_progress("nights", 2, log) as done:
        for _ in range(2):
            with job_progress("channels", 4) as advance:
                advance(2)
            done()
    printed = log.file.getvalue().splitlines()
    assert len(printed) == lines
    assert printed[:2] == ["nights: 0 of 2 done; channels, 2 of 4", "nights: 1 of 2 done"][:lines]


def test_without_a_batch_nothing_happens():
    with job_progress("alone", 2) as advance:
        advance()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("EEG [/x] C4", "EEG [/x] C4"),
        ("/x/[lab]/out " + "a" * 100, "/x/[lab]/out " + "a" * 100),
        ("night\udcff.edf", r"night\xff.edf"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        (":smile: [red]", ":smile: [red]"),
    ],
)
def test_a_message_is_printed_as_it_is(capsys, text, shown):
    say(Console(width=40), text, label="error", style="red")
    assert capsys.readouterr().out == f"error {shown}\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_breaks_no_path_where_there_is_no_terminal(terminal):
    screen, path = console(terminal), "/data/" + "a_long_folder/" * 20
    show(screen, ResultsTable([{"bundle": path, "fits": "yes"}], title="bundles"))
    assert (path in screen.file.getvalue()) != terminal
