import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.datamodules.splits import check_split, make_split, split_blocks, split_by_fold, split_by_fraction
from src.signals import BadInput

ids = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=4, max_size=40, unique=True)


@given(ids, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_fraction_split_is_a_partition_that_ignores_order_and_repetition(subjects, seed, random):
    split = split_by_fraction(subjects, val=0.2, test=0.25, seed=seed)
    shuffled = subjects * 2
    random.shuffle(shuffled)
    assert split_by_fraction(shuffled, val=0.2, test=0.25, seed=seed) == split
    assert sorted(split.subjects("train") + split.subjects("val") + split.subjects("test")) == sorted(subjects)
    assert all(split.subjects(part) for part in ("train", "val", "test"))


@given(ids, st.integers(2, 4), st.integers(0, 1000))
def test_folds_test_every_subject_exactly_once(subjects, folds, seed):
    splits = [split_by_fold(subjects, fold=k, folds=folds, val=0.2, seed=seed) for k in range(folds)]
    assert sorted(s for split in splits for s in split.subjects("test")) == sorted(subjects)
    for split in splits:
        assert split.subjects("val")
        assert split.subjects("train")


@given(st.integers(50, 10_000), st.integers(0, 10))
def test_blocks_keep_their_distance(length, gap):
    blocks = split_blocks(length, val=0.2, test=0.2, gap=gap)
    assert blocks["val"].start - blocks["train"].stop == gap
    assert blocks["test"].start - blocks["val"].stop == gap
    assert blocks["test"].stop == length


def test_digest_tells_assignments_apart():
    a = split_by_fraction(list("abcdefgh"), val=0.2, test=0.2, seed=1)
    b = split_by_fraction(list("abcdefgh"), val=0.2, test=0.2, seed=2)
    assert a.digest != b.digest
    assert a.to_dict()["sha256"] == a.digest


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"method": "fraction", "val": 0.5, "test": 0.5}, "together are 1"),
        ({"method": "fraction", "val": 0.3, "test": 0.69}, "cannot be split"),
        ({"method": "fold", "fold": 4, "folds": 4, "val": 0.1}, "fold: is 4; give a number from 0 to 3"),
        ({"method": "fold", "fold": 0, "folds": 9, "val": 0.1}, "4 subject"),
        ({"method": "by_epoch"}, "unknown method"),
        ({"method": "fraction", "vall": 0.1}, "vall"),
    ],
)
def test_impossible_splits_say_why(arguments, problem):
    with pytest.raises(BadInput, match=problem):
        make_split(["a", "b", "c", "d"], seed=0, **arguments)


def test_parameters_of_another_method_are_passed_over_and_a_typo_is_not():
    given: dict = {"method": "fraction", "val": 0.2, "test": 0.25, "seed": 1}
    assert make_split(list("abcdef"), **given, path="folds.json", fold=2) == make_split(list("abcdef"), **given)
    with pytest.raises(BadInput, match=r"datamodule.split.tset: is no parameter of a split"):
        make_split(list("abcdef"), **given, tset=0.2)
    with pytest.raises(BadInput, match=r"datamodule.split.path: is needed by file"):
        make_split(list("abcdef"), method="file", fold=0, val=1, seed=0)


def test_the_folds_of_the_repository_are_found_from_anywhere_and_before_any_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = "conf/folds/sleep_edfx_bandpower_6.json"
    assert check_split("file", path=path, fold=5, val=4)["path"] == path
    with pytest.raises(BadInput, match="has 6 folds, not a fold 6"):
        check_split("file", path=path, fold=6, val=4)
    with pytest.raises(BadInput, match=r"absent.json: is no file of folds"):
        check_split("file", path="absent.json", fold=0, val=4)


def test_too_short_a_recording_cannot_be_split_in_blocks():
    with pytest.raises(BadInput, match="too few"):
        split_blocks(10, val=0.2, test=0.2, gap=5)


def write_folds(path, folds):
    path.write_text(json.dumps({"about": "test", "folds": folds}))
    return str(path)


def test_a_file_says_who_is_tested_and_the_seed_who_validates(tmp_path):
    path = write_folds(tmp_path / "folds.json", [["a", "b"], ["c", "d"], ["e", "f"]])
    split = make_split(list("fedcba"), method="file", path=path, fold=1, val=2, seed=3)
    assert split.subjects("test") == ["c", "d"]
    assert len(split.subjects("val")) == 2
    assert split == make_split(list("abcdef"), method="file", path=path, fold=1, val=2, seed=3)
    with pytest.raises(BadInput, match="has 3 folds"):
        make_split(list("abcdef"), method="file", path=path, fold=3, val=2, seed=3)
    with pytest.raises(BadInput, match="disagree on subjects: z"):
        make_split(list("abcdefz"), method="file", path=path, fold=0, val=2, seed=3)
    with pytest.raises(BadInput, match="no file of folds"):
        make_split(["a"], method="file", path=str(tmp_path / "absent.json"), fold=0, val=1, seed=0)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "conf" / "folds").glob("*.json")), ids=lambda p: p.stem
)
def test_the_repositorys_folds_test_everyone_once(path):
    folds = json.loads(path.read_text())["folds"]
    everyone = [subject for fold in folds for subject in fold]
    assert len(everyone) == len(set(everyone))
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert len(folds) == int(path.stem.rpartition("_")[2])
