"""Which configuration is best, and what the tables say of it."""

import pytest

from src.runs.folder import write_record
from src.runs.ranking import brief, rank, read_sweep, write_tables
from tests.tables import read_csv


def job(folder, number, overrides, score=None, mode="max", **more):
    path = folder / str(number)
    path.mkdir(parents=True)
    record = {
        "status": "failed" if score is None else "finished",
        "overrides": overrides,
        "config": {},
        "monitor": "val/f1",
        "mode": mode,
        "metrics": {},
    }
    write_record(path / "run.json", record | ({} if score is None else {"score": score}) | more)


@pytest.fixture
def sweep(tmp_path):
    for number, (lr, seed, score) in enumerate([(1, 1, 0.5), (1, 2, 0.7), (2, 1, 0.8), (2, 2, None), (3, 1, 0.1)]):
        job(tmp_path, number, [f"model.lr={lr}", f"seed={seed}", "workers=1"], score)
    return tmp_path


def test_seeds_are_averaged_and_incomplete_configurations_come_last(sweep):
    ranking = rank(read_sweep(sweep))
    assert [c.parameters for c in ranking] == [{"model.lr": v} for v in ("1", "3", "2")]
    assert ranking[0].mean == pytest.approx(0.6)
    assert ranking[0].sd == pytest.approx(0.1414, abs=1e-4)
    assert ranking[1].sd is None
    assert len(ranking[2].scores) < len(ranking[2].jobs)


def test_the_smaller_is_better_where_the_runs_minimised(tmp_path):
    for number, score in enumerate([0.5, 0.2, 0.9]):
        job(tmp_path, number, [f"model.lr={number}"], score, mode="min")
    assert [c.mean for c in rank(read_sweep(tmp_path))] == [0.2, 0.5, 0.9]


def test_the_tables_name_failures_and_link_jobs(sweep):
    job(sweep, 10, ["model.lr=3", "seed=2"], error="lr is negative")
    write_tables(sweep)
    jobs = read_csv(sweep / "jobs.csv")
    assert [row["job"] for row in jobs] == ["0", "1", "2", "3", "4", "10"]
    assert jobs[-1]["reason"] == "lr is negative"
    assert "[10](10/)" in (sweep / "sweep.md").read_text()
    assert (sweep / "sweep.csv").read_text().startswith("rank,model.lr,val/f1,sd,finished,jobs")


def test_a_record_that_is_damaged_is_no_job(sweep):
    (sweep / "0" / "run.json").write_text("")
    assert [run.number for run in read_sweep(sweep)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0.008122334634278144", "0.008122"),
        ("1e-3", "1e-3"),
        ("12345678", "12345678"),
        ("sleep_simple.cnn", "sleep_simple.cnn"),
        (0.77215, "0.7722"),
        (5677.0, "5677"),
        (1.0, "1.0000"),
        (None, None),
    ],
)
def test_tables_for_people_are_short(value, shown):
    assert brief(value) == shown
