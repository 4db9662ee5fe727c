from src.reports.tables import ResultsTable, markdown_table, summary_table
from tests.tables import printed

ROWS: list[dict] = [{"recording": "a", "n": 12345, "κ": 0.5}, {"recording": "b", "n": None, "κ": None}]


def test_missing_numbers_are_dashes_and_thousands_are_spaced():
    text = printed(ResultsTable(ROWS, title="results"))
    assert "12\u202f345" in text
    assert "0.50" in text
    assert text.count("–") == 2


def test_ten_columns_fit_a_terminal():
    row = {"recording": "majority stage", "epochs": 1234} | dict.fromkeys(
        ("acc", "MF1", "κ", "W", "N1", "N2", "N3", "REM"), 0.123
    )
    assert "0.12 " in printed(ResultsTable([row], title="x"))
    assert len(printed(ResultsTable([row], title="x")).splitlines()) <= 6


def test_markdown_has_a_line_per_row():
    assert markdown_table(ROWS).splitlines()[2:] == ["| a | 12\u202f345 | 0.50 |", "| b | – | – |"]


def test_parts_become_rows():
    assert "val" in printed(summary_table({"train": {"epochs": 3}, "val": {"epochs": 1}}))


def test_long_texts_wrap_and_a_long_title_stays_whole():
    title = "/data/a/folder/of/recordings/with/a/long/path"
    assert title in printed(ResultsTable([{"n": 1}], title=title))
    row = {"bundle": "/data/" + "b" * 60, "task": "sleep_staging", "fits": "lacks a channel: " + "c" * 40, "n": 7}
    text = "".join(printed(ResultsTable([row], title="x")).split())
    assert (text.count("b"), text.count("c")) == (60 + 1, 40 + 2), text  # of the header; of "lacks a channel"
    assert "sleep_staging" in text


def test_neither_a_long_title_nor_a_long_note_costs_a_column():
    row = {"subject": "suite2p_plane", "frames": "2,000", "model": "Recorded_EXC_2Hz_smoothing500ms"}
    row |= {"signal": "ΔF/F", "cells": "19 of 20", "Hz": "10", "mean rate": "0.225 Hz", "last": "kept"}
    text = printed(ResultsTable([row], title="/data/" + "long/" * 20, notes=["a note of many words " * 8]))
    assert text.count("long") == 20
    assert text.split().count("words") == 8
    assert {"last", "kept", "suite2p_plane"} <= set(text.split())


def test_no_word_or_number_is_broken_where_words_can_wrap():
    names = ("bits/spike", "step 1", "step 8", "AP", "F1", "MAE 1", "MAE 8", "over copy")
    rows = [
        {"forecast": name, "used": ""} | dict.fromkeys(names, 1.25) for name in ("autoregression", "linear population")
    ]
    text = printed(ResultsTable(rows, title="x"))
    assert max(map(len, text.splitlines())) <= 80
    assert {"forecast", "autoregression", "linear", "population", "bits/spike", "copy"} <= set(text.split())
    assert text.count("1.25") == 16
