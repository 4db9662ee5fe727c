import numpy as np
import pytest

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.signature import BANDS, FEATURES, choose_expert, signature
from src.simulate.spikes import FS_HZ, LOOKALIKES, lookalike

CHAIN = Conditioning(low_hz=20.0)


@pytest.fixture(scope="module")
def traces():
    return {name: CHAIN.linear(lookalike(name, 0, duration_s=12)[0]) for name in LOOKALIKES if name != "D1"}


@pytest.fixture(scope="module")
def known(traces):
    return np.stack([signature(trace, FS_HZ) for trace in traces.values()])


def test_every_recording_finds_itself_at_its_own_scale(traces, known):
    for expert, trace in enumerate(traces.values()):
        choice = choose_expert(signature(trace, FS_HZ), known)
        assert (choice.expert, choice.gain) == (expert, 1.0)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 4.0])
def test_in_another_unit_it_is_brought_back(traces, known, factor):
    for expert, trace in enumerate(traces.values()):
        choice = choose_expert(signature((trace * factor).astype(np.float32), FS_HZ), known)
        assert choice.expert == expert
        assert choice.gain == pytest.approx(1 / factor, rel=1e-3)


def test_a_later_start_changes_nothing(traces, known):
    for expert, trace in enumerate(traces.values()):
        choice = choose_expert(signature(trace[1_003:], FS_HZ), known)
        assert (choice.expert, choice.gain) == (expert, 1.0)


def test_a_stranger_is_taken_in_its_own_units_by_its_level(known):
    stranger = known[2].copy()
    stranger[:BANDS] += 0.5 * np.sin(np.arange(BANDS))  # another colour
    stranger[BANDS] = known[4, BANDS] + 0.02
    choice = choose_expert(stranger, known)
    assert choice.gain == 1.0
    assert choice.expert == 4
    assert choose_expert(stranger, known, gain=2.0).gain == 2.0


def test_even_a_dead_or_tiny_trace_has_a_signature():
    for trace in (np.zeros(2_000, np.float32), np.ones(3, np.float32)):
        found = signature(trace, FS_HZ)
        assert found.shape == (FEATURES,)
        assert np.isfinite(found).all()


def test_a_gap_is_no_quiet_background(traces, known):
    for expert, trace in enumerate(traces.values()):
        usable = np.ones(len(trace), bool)
        usable[50_000:200_000] = False
        gap = np.where(usable, trace, 0).astype(np.float32)
        assert choose_expert(signature(gap, FS_HZ, usable), known).expert == expert
        np.testing.assert_allclose(signature(gap, FS_HZ, usable), known[expert], atol=0.15)
