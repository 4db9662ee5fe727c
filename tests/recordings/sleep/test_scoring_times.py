"""Times as scoring files write them."""

from datetime import date
from pathlib import Path

import pytest

from src.recordings.sleep.scoring_times import onsets_of, seconds_of, without_luna_times
from src.signals import BadInput


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("30,5", 30.5),
        ("23:00:30", 82_830),
        ("23.00.30", 82_830),
        ("11:00:30 PM", 82_830),
        ("2020-01-01T23:00:30.0+01:00", 82_830),
        ("31-Dec-19-23:00:30", 82_830),
        ("23h00m30s", 82_830),
        ("23h00", 82_800),
        ("24:00:00", None),
        ("N2", None),
    ],
)
def test_seconds_of_numbers_and_clock_times(cell, seconds):
    assert seconds_of(cell) == seconds


def test_onsets_pass_midnight_and_no_other_half_day():
    onsets, start, dates = onsets_of(Path("n.csv"), ["23:59:30", "00:00:00", "00:00:30"])
    assert (onsets, start.hour, dates) == ([0, 30, 60], 23, ())
    with pytest.raises(BadInput, match="row 2: clock time '01:00:00' is half a day before the row above it"):
        onsets_of(Path("n.csv"), ["12:59:30", "01:00:00"])


def test_elapsed_times_and_epochs_of_luna():
    assert without_luna_times("0+00:02:00\te:5 e:20:5,W") == "120.000000\t120.000000 100.000000,W"


@pytest.mark.parametrize(
    ("cells", "dates"),
    [
        (["01/03/2020 23:59:30", "02/03/2020 00:00:30"], [date(2020, 3, 1)]),
        (["03/01/2020 23:59:30", "03/02/2020 00:00:30"], [date(2020, 3, 1)]),
        (["01/03/2020 23:59:30", "01/03/2020 00:00:30"], [date(2020, 3, 1), date(2020, 1, 3)]),
        (["01.03.20 23:59:30", "02.03.20 00:00:30"], [date(2020, 3, 1)]),
        (["2020/03/01 23:59:30", "2020/03/02 00:00:30"], [date(2020, 3, 1)]),
    ],
)
def test_dates_in_the_orders_that_are_possible(cells, dates):
    """The day that follows at midnight says which number is the day."""
    onsets, start, found = onsets_of(Path("n.csv"), cells)
    assert (onsets, start.hour, list(found)) == ([0, 60], 23, dates)
