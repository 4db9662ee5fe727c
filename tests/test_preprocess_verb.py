from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from preprocess import as_list
from src import schema
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.manifest import MANIFEST
from src.storage.parameters import PreprocessConfig
from src.storage.step import CachedStep, ensure
from tests.children import verb


def count(inputs, params, out_dir, seed):
    text = inputs["text"].read_text()
    if not text:
        raise BadInput(inputs["text"].name, "is empty", "record again")
    if text == "odd":
        raise ZeroDivisionError("odd")
    (out_dir / "count.txt").write_text(str(len(text)))


def one(source: Path, output_dir: Path) -> bool:
    return ensure(
        CachedStep("count", 1, count), {"text": source}, {}, label=source.stem, target=output_dir / source.stem
    ).reused


@dataclass
class LettersParams(PreprocessConfig):
    """A step as users meet it: every text file below ``input_dir``, one folder each."""

    def run(self) -> Summary:
        sources = sorted(Path(self.input_dir).glob("*.txt"))
        if not sources:
            raise BadInput(self.input_dir, "holds no text files", "give another input_dir")
        jobs = [Job(p.stem, one, (p, Path(self.output_dir))) for p in sources if p.stem not in self.skip]
        return run_batch(jobs, title="letters", workers=self.workers)


@pytest.fixture
def preprocess(tmp_path, repository):
    """Run the verb in an empty folder, with one more step than the repository has."""
    groups, here = tmp_path / "conf", tmp_path / "here"
    (groups / "preprocess").mkdir(parents=True)
    here.mkdir()
    (groups / "preprocess" / "letters.yaml").write_text("# @package _global_\ndefaults: [letters_schema]\n")
    sources = tmp_path / "texts"
    sources.mkdir()
    for name, text in {"a": "one", "b": "three", "c": "seven"}.items():
        (sources / f"{name}.txt").write_text(text)

    def run(*overrides, inputs=sources):
        arguments = ["preprocess=letters", f"output_dir={tmp_path / 'out'}", f"input_dir={inputs}", *overrides]
        line = [repository / "preprocess.py", "--config-dir", groups, *arguments]
        return verb(line, here, lambda: schema.steps().update(letters=LettersParams))

    made: Any = run
    made.sources, made.out, made.here = sources, tmp_path / "out", here
    return made


@pytest.mark.parametrize("workers", [1, 2])
def test_every_recording_becomes_a_folder_and_nothing_else_is_left(preprocess, workers):
    done = preprocess(f"workers={workers}", "skip=[b]")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in preprocess.out.iterdir()) == ["a", "c"]
    assert sorted(p.name for p in (preprocess.out / "c").iterdir()) == ["count.txt", MANIFEST]
    assert (preprocess.out / "c" / "count.txt").read_text() == "5"
    assert list(preprocess.here.iterdir()) == []
    assert "done" in done.stdout


def test_a_bad_recording_is_named_and_the_exit_code_says_so(preprocess):
    (preprocess.sources / "b.txt").write_text("")
    done = preprocess()
    assert done.returncode == 1
    assert "b.txt: is empty; record again" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert sorted(p.name for p in preprocess.out.iterdir()) == ["a", "c"]


def test_an_error_of_our_own_shows_where_it_was(preprocess):
    (preprocess.sources / "b.txt").write_text("odd")
    done = preprocess()
    assert done.returncode == 1
    assert "ZeroDivisionError: odd" in done.stdout
    assert "in count" in done.stdout


def test_bad_input_is_one_line(preprocess, tmp_path):
    done = preprocess(inputs=tmp_path / "here")
    assert done.returncode == 2
    assert done.stdout == f"error {tmp_path / 'here'}: holds no text files; give another input_dir\n"
    assert done.stderr == ""
    assert not preprocess.out.exists()


def test_a_share_of_the_recordings_is_done_and_the_rest_left_to_others(preprocess):
    assert preprocess('only="[ab]"').returncode == 0
    assert {p.parent.name for p in preprocess.out.glob(f"*/{MANIFEST}")} == {"a", "b"}
    refused = preprocess("only=x*")
    assert refused.returncode == 2
    assert "no recording is called 'x*'; there are: a, b, c" in refused.stdout
    assert "give a part from 1 to 2" in preprocess("part=3", "parts=2").stdout


def test_the_parts_of_a_multirun_make_the_whole_and_one_bad_job_stops_no_other(preprocess):
    (preprocess.sources / "b.txt").write_text("")
    done = preprocess("hydra.mode=MULTIRUN", "part=1,2,3", "parts=3")
    assert done.returncode == 1
    assert "b.txt: is empty; record again" in done.stdout
    assert {p.parent.name for p in preprocess.out.glob(f"*/{MANIFEST}")} == {"a", "c"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("skip=subject_3", "skip=[subject_3]"),
        ("skip=subject_1,subject_2", "skip=[subject_1,subject_2]"),
        ("skip='a,b'", "skip=[a,b]"),
        ("skip=[a,b]", "skip=[a,b]"),
        ("skipped=a,b", "skipped=a,b"),
        ("seed=1", "seed=1"),
    ],
)
def test_one_name_and_names_with_commas_are_lists(given, read):
    assert as_list(given) == read
