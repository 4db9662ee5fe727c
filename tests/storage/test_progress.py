"""The line below a batch's bar: there while a job runs, silent without a batch."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from src.storage.progress import say, shown_on, steps


def test_steps_are_shown_and_go_away():
    with Progress(console=Console(file=io.StringIO())) as bar, shown_on(bar):
        with steps("rat1/sh0 channels", 4, step_bytes=10_000_000) as advance:
            advance()
            advance(0.25)
            advance(0.75)
            (line,) = bar.tasks
            assert (line.completed, line.total) == (2, 4)
            assert "rat1/sh0 channels" in line.description
            assert "MB/s" in line.description
        assert not bar.tasks


def test_without_a_batch_nothing_happens():
    with steps("alone", 2) as advance:
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
