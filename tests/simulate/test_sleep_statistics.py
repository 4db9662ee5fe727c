"""The measured tables hang together, and are those of the recordings where these are at hand."""

import numpy as np
import pytest

from benchmarks.sleep_statistics import power_statistics, read_powers
from src.simulate import sleep_statistics as measured


@pytest.mark.parametrize("name", ["EPOCH_CHANNELS", "EPOCH_BANDS", "SUBJECT_CHANNELS", "SUBJECT_BANDS"])
def test_correlations_are_correlations(name):
    table = getattr(measured, name)
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_array_equal(np.diag(table), 1.0)
    assert np.linalg.eigvalsh(table).min() > 0


def test_tables_are_those_of_the_recordings(shared_data):
    found = power_statistics(read_powers(shared_data / "sleep_edfx_bandpower"))
    for name, table in (("mean", measured.MEAN), ("epoch_sd", measured.EPOCH_SD), ("night_sd", measured.NIGHT_SD)):
        np.testing.assert_allclose(getattr(found, name), table, atol=0.011)
