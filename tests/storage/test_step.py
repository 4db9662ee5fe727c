import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.signals import BadInput
from src.storage.atomic import folder_lock
from src.storage.manifest import MANIFEST, checksums
from src.storage.step import CachedStep, ensure, fingerprint, read_artifact
from tests.children import ended, fork

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def double(inputs, params, out_dir, seed):
    """Write ``gain`` times the input plus noise from the seed, in two files, one of them below."""
    (out_dir / "calls").mkdir()
    values = np.fromfile(inputs["signal"], np.float64) * params["gain"]
    values = values + np.random.default_rng(seed).standard_normal(values.size)
    np.save(out_dir / "values.npy", values)
    (out_dir / "calls" / "n.txt").write_text(str(values.size))
    return {"axes": ["time"], "units": "uV", "count": int(values.size)}


STEP = CachedStep("double", 1, double)
PARAMS = {"gain": 2.0}


@pytest.fixture
def signal(tmp_path):
    path = tmp_path / "signal.f64"
    np.arange(100.0).tofile(path)
    return path


def make(signal: Path, **changes):
    fields = {"params": PARAMS, "seed": 0, "cache": signal.parent / "cache", "label": "night-1", **changes}
    return ensure(fields.pop("step", STEP), {"signal": signal}, fields.pop("params"), **fields)


def test_a_target_made_from_a_recording_of_another_folder_is_refused(signal, tmp_path):
    target = tmp_path / "out" / "night-1"
    make(signal, cache=None, target=target)
    before = content(target)
    other = tmp_path / "other" / signal.name
    other.parent.mkdir()
    np.ones(100).tofile(other)
    with pytest.raises(BadInput, match=r"holds what was made from another signal\.f64 than"):
        make(other, cache=None, target=target)
    assert content(target) == before
    np.ones(100).tofile(signal)  # corrected in its place
    assert not make(signal, cache=None, target=target).reused
    assert make(other, cache=None, target=target).reused  # moved: the same content


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest and what was put aside."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST and ".kept-" not in p.name)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


class TestKey:
    def test_it_moves_with_each_of_its_parts(self, signal):
        inputs = {"signal": signal}
        other = signal.with_name("other.f64")
        np.arange(1.0, 101.0).tofile(other)
        keys = [
            STEP.key(inputs, PARAMS, 0),
            STEP.key(inputs, PARAMS, 1),
            STEP.key(inputs, PARAMS, None),
            STEP.key(inputs, {"gain": 3.0}, 0),
            STEP.key(inputs, {**PARAMS, "offset": 0}, 0),
            STEP.key({"signal": other}, PARAMS, 0),
            STEP.key({"noise": signal}, PARAMS, 0),
            STEP.key({}, PARAMS, 0),
            CachedStep("double", 2, double).key(inputs, PARAMS, 0),
            CachedStep("triple", 1, double).key(inputs, PARAMS, 0),
        ]
        assert len(set(keys)) == len(keys)

    def test_it_stays_when_a_file_is_touched_renamed_or_copied(self, signal):
        before = STEP.key({"signal": signal}, PARAMS, 0)
        os.utime(signal, (1, 1))
        assert STEP.key({"signal": signal}, PARAMS, 0) == before
        assert STEP.key({"signal": signal.rename(signal.with_name("moved"))}, PARAMS, 0) == before

    def test_it_sees_a_change_that_keeps_size_and_time(self, signal):
        os.utime(signal, (1, 1))
        before = STEP.key({"signal": signal}, PARAMS, 0)
        np.arange(100.0)[::-1].tofile(signal)
        os.utime(signal, (1, 1))
        assert STEP.key({"signal": signal}, PARAMS, 0) != before

    @given(params=st.dictionaries(st.text(max_size=4), plain, max_size=4))
    def test_the_order_of_parameters_does_not_matter(self, params):
        reverse = dict(reversed(params.items()))
        assert STEP.key({}, params, 0) == STEP.key({}, reverse, 0)


class TestFolderInput:
    def test_names_and_contents_count_times_do_not(self, tmp_path):
        folder = tmp_path / "in"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a").write_text("a")
        seen = [fingerprint(folder)]
        os.utime(folder / "sub" / "a", (1, 1))
        assert fingerprint(folder) == seen[0]
        (folder / "sub" / "a").write_text("b")
        seen.append(fingerprint(folder))
        (folder / "sub" / "a").rename(folder / "sub" / "c")
        seen.append(fingerprint(folder))
        assert len(set(seen)) == 3

    def test_an_artifact_made_again_is_the_same_input(self, signal, tmp_path):
        first = make(signal, cache=tmp_path / "one")
        second = make(signal, cache=tmp_path / "two", label="renamed")
        manifests = [(a.path / MANIFEST).read_text() for a in (first, second)]
        assert manifests[0] != manifests[1]
        assert fingerprint(first.path) == fingerprint(second.path)

    def test_an_artifact_of_other_parameters_is_another_input(self, signal):
        assert fingerprint(make(signal).path) != fingerprint(make(signal, params={"gain": 1.0}).path)


class TestEnsure:
    def test_the_second_call_computes_nothing(self, signal):
        first, second = make(signal), make(signal)
        assert (first.reused, second.reused) == (False, True)
        assert second.manifest == first.manifest
        assert first.path == second.path
        assert [p.name for p in (signal.parent / "cache" / "double").iterdir()] == [first.path.name]

    def test_the_manifest_tells_how_it_was_made(self, signal):
        artifact = make(signal)
        manifest = json.loads((artifact.path / MANIFEST).read_text())
        assert manifest == artifact.manifest
        assert manifest["key"] == STEP.key({"signal": signal}, PARAMS, 0)
        assert (manifest["step"], manifest["version"], manifest["params"], manifest["seed"]) == ("double", 1, PARAMS, 0)
        place = manifest["inputs"]["signal"].pop("place")
        assert len(place) == 16
        assert manifest["inputs"] == {"signal": {"name": "signal.f64", "sha256": fingerprint(signal)}}
        assert set(manifest["outputs"]) == {"values.npy", "calls/n.txt"}
        assert manifest["outputs"] == checksums(artifact.path)
        assert manifest["facts"] == {"axes": ["time"], "units": "uV", "count": 100}
        assert set(manifest["provenance"]) == {"code", "python", "packages"}
        assert manifest["provenance"]["packages"]["numpy"] == np.__version__
        assert manifest["label"] == "night-1"
        assert manifest["wall_s"] >= 0

    def test_no_machine_path_enters_the_manifest(self, signal):
        assert str(signal.parent) not in (make(signal).path / MANIFEST).read_text()

    @pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "no manifest", "half a manifest", "other schema"])
    def test_a_damaged_result_is_made_again(self, signal, damage):
        whole = make(signal)
        before = content(whole.path)
        values, manifest = whole.path / "values.npy", whole.path / MANIFEST
        if damage == "truncate":
            os.truncate(values, values.stat().st_size // 2)
        elif damage == "flip":
            raw = bytearray(values.read_bytes())
            raw[-1] ^= 1
            values.write_bytes(raw)
        elif damage == "delete":
            (whole.path / "calls" / "n.txt").unlink()
        elif damage == "no manifest":
            manifest.unlink()
        elif damage == "half a manifest":
            os.truncate(manifest, manifest.stat().st_size // 2)
        else:
            manifest.write_text(manifest.read_text().replace('"schema": 2', '"schema": 99'))
        assert read_artifact(whole.path) is None
        again = make(signal)
        assert not again.reused
        assert content(again.path) == before
        aside = {p.name for p in again.path.iterdir() if ".kept-" in p.name}
        assert aside == {
            "truncate": {"values.npy.kept-1"},
            "flip": {"values.npy.kept-1"},
            "no manifest": {"values.npy.kept-1"},
            "half a manifest": {"values.npy.kept-1", "manifest.json.kept-1"},
        }.get(damage, set())
        assert make(signal).reused

    def test_what_somebody_adds_to_a_result_does_not_spoil_it(self, signal):
        artifact = make(signal)
        (artifact.path / "notes.txt").write_text("a good night")
        assert make(signal).reused

    def test_a_failing_stage_leaves_nothing_and_its_error_is_kept(self, signal):
        def fail(inputs, params, out_dir, seed):
            (out_dir / "half").write_text("half")
            raise BadInput("night-1.edf", "flat channel", "choose another")

        with pytest.raises(BadInput, match="flat channel"):
            make(signal, step=CachedStep("fail", 1, fail))
        assert list((signal.parent / "cache").rglob("*")) == [signal.parent / "cache" / "fail"]

    def test_an_input_that_changes_meanwhile_is_not_stamped(self, signal):
        def slow(inputs, params, out_dir, seed):
            with inputs["signal"].open("ab") as file:
                file.write(b"more")

        with pytest.raises(BadInput, match="night-1: its files changed while they were read"):
            make(signal, step=CachedStep("slow", 1, slow))
        assert not list((signal.parent / "cache" / "slow").iterdir())

    def test_facts_that_json_cannot_say_are_refused(self, signal):
        def vague(inputs, params, out_dir, seed):
            return {"mean": float("nan")}

        with pytest.raises(ValueError, match="not JSON compliant"):
            make(signal, step=CachedStep("vague", 1, vague))

    def test_a_label_with_slashes_stays_in_its_folder(self, signal):
        artifact = make(signal, label="../../s1/night\\1")
        assert artifact.path.parent == signal.parent / "cache" / "double"

    def test_cache_or_target_but_one_of_them(self, signal):
        for places in ({"cache": None}, {"target": signal.parent / "x"}):
            with pytest.raises(TypeError, match="either cache or target"):
                make(signal, **places)


class TestTarget:
    def test_a_result_of_other_parameters_is_replaced(self, signal):
        target = signal.parent / "out"
        make(signal, cache=None, target=target)
        artifact = make(signal, cache=None, target=target, params={"gain": 5.0})
        assert not artifact.reused
        assert read_artifact(target).manifest["params"] == {"gain": 5.0}
        assert make(signal, cache=None, target=target, params={"gain": 5.0}).reused

    def test_a_place_in_or_above_the_input_is_refused(self, signal):
        for target in (signal, signal.parent):
            with pytest.raises(BadInput, match=r"(is|contains) the input"):
                make(signal, cache=None, target=target)


class TestProcesses:
    def test_a_killed_run_leaves_nothing_finished_and_the_next_one_finishes_it(self, signal):
        def die(inputs, params, out_dir, seed):
            (out_dir / "first").write_text("first")
            os.kill(os.getpid(), 9)

        assert ended(fork(lambda: make(signal, step=CachedStep("double", 1, die)))) == -9
        (hidden,) = (signal.parent / "cache" / "double").glob(".*.part-*")
        assert (hidden / "first").read_text() == "first"
        artifact = make(signal)
        assert not artifact.reused
        assert [p.name for p in artifact.path.parent.iterdir()] == [artifact.path.name]
        assert read_artifact(artifact.path) is not None

    def test_two_processes_with_one_key_compute_once(self, signal):
        def slow(inputs, params, out_dir, seed):
            with (signal.parent / "log").open("a") as log:
                log.write("run ")
            time.sleep(0.3)

        def make_and_tell():
            (signal.parent / f"{os.getpid()}.told").write_text(
                str(make(signal, step=CachedStep("slow", 1, slow)).reused)
            )

        assert [ended(child) for child in [fork(make_and_tell), fork(make_and_tell)]] == [0, 0]
        assert sorted(told.read_text() for told in signal.parent.glob("*.told")) == ["False", "True"]
        assert (signal.parent / "log").read_text() == "run "
        assert len(list((signal.parent / "cache" / "slow").iterdir())) == 1

    def test_a_busy_output_can_be_refused(self, signal):
        target = signal.parent / "out"
        with folder_lock(target), pytest.raises(BadInput, match="another run is writing it"):
            make(signal, cache=None, target=target, wait=False)
