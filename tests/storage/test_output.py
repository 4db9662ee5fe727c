import json
import os
import signal
import sys
from pathlib import Path

import pytest

from src.signals import BadInput
from src.storage.manifest import MANIFEST, read_manifest, source_record, write_manifest
from src.storage.output import LONGEST_NAME, OutputFolder, distinct_names, plain_name, refuse_overlap
from tests.children import ended, fork


def write(output: OutputFolder, name: str, **files: str) -> None:
    with output.folder(name) as part:
        fill(part, files)


def add(output: OutputFolder, **files: str) -> None:
    with output.files() as part:
        fill(part, files)


def fill(part: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (part / name.replace("__", "/")).parent.mkdir(exist_ok=True)
        (part / name.replace("__", "/")).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """Every file but manifests, by relative name."""
    return {
        p.relative_to(folder).as_posix(): p.read_text()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }


@pytest.fixture
def output(tmp_path):
    return OutputFolder(tmp_path / "out")


def test_what_could_not_be_written_is_refused_before_anything_is_computed(output, tmp_path):
    output.check()
    output.check("night", "day")
    (tmp_path / "out" / "night").mkdir(parents=True)
    (tmp_path / "out" / "night" / "mine.txt").write_text("a")
    with pytest.raises(BadInput, match=r"night: already holds 'mine.txt'"):
        output.check("day", "night")
    with pytest.raises(BadInput, match=r"out: already holds 'night'"):
        output.check()
    (tmp_path / "out" / "night" / "mine.txt").unlink()
    write(OutputFolder(tmp_path / "out" / "night" / "session"), "sh0", a="1")
    output.check()  # folders of results at any depth are ours
    (tmp_path / "out" / "night" / "mine.txt").write_text("a")
    for place in ("out/night/mine.txt", "out/night/mine.txt/below/it"):
        with pytest.raises(BadInput, match=r"mine.txt: is a file where a folder is to be written; choose another"):
            OutputFolder(tmp_path / place)


class TestFolder:
    def test_a_result_appears_whole_with_a_manifest_that_lists_it(self, output, tmp_path):
        with output.folder("night") as part:
            fill(part, {"a": "1", "sub__b": "22"})
            (part / MANIFEST).write_text('{"task": "staging"}')
            assert not (tmp_path / "out" / "night").exists()
        manifest = read_manifest(tmp_path / "out" / "night")
        assert manifest["task"] == "staging"
        assert {n: r["bytes"] for n, r in manifest["outputs"].items()} == {"a": 1, "sub/b": 2}
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["night"]

    def test_a_new_result_replaces_the_old_one_and_nothing_else(self, output, tmp_path):
        write(output, "night", old="old", sub__old="old", both="old")
        (tmp_path / "out/night/reviewed.csv").write_text("W")
        (tmp_path / "out/night/sub/.hidden").write_text("mine")
        write(output, "night", new="new", both="new")
        kept = {"reviewed.csv": "W", "sub/.hidden": "mine"}
        assert content(tmp_path / "out/night") == {"both": "new", "new": "new", **kept}
        write(output, "night", new="newer")
        assert content(tmp_path / "out/night") == {"new": "newer", **kept}

    def test_a_result_that_somebody_has_edited_is_kept_under_another_name(self, output, tmp_path, capsys):
        write(output, "night", a="1", b="1")
        (tmp_path / "out/night/a").write_text("reviewed")
        write(output, "night", a="2")
        write(output, "night", a="3")
        assert content(tmp_path / "out/night") == {"a": "3", "a.kept-1": "reviewed"}
        assert "it is kept as a.kept-1" in capsys.readouterr().err

    def test_an_error_leaves_everything_as_it_was(self, output, tmp_path):
        write(output, "night", a="1")
        with pytest.raises(ZeroDivisionError), output.folder("night") as part:
            (part / "a").write_text("2")
            raise ZeroDivisionError
        assert content(tmp_path / "out") == {"night/a": "1"}
        assert sorted(os.listdir(tmp_path / "out")) == ["night"]

    @pytest.mark.parametrize("manifest", [None, "{", '{"name": "a browser extension"}'])
    def test_a_folder_of_somebody_else_is_refused_before_anything_is_computed(self, output, tmp_path, manifest):
        (tmp_path / "out/night").mkdir(parents=True)
        (tmp_path / "out/night/night.edf").write_text("raw")
        if manifest:
            (tmp_path / "out/night" / MANIFEST).write_text(manifest)
        with pytest.raises(BadInput, match=r"night\.edf|manifest\.json") as refused, output.folder("night"):
            pytest.fail("the block must not run")
        assert "choose another output_dir" in refused.value.hint
        assert content(tmp_path / "out") == {"night/night.edf": "raw"}

    def test_an_empty_folder_and_litter_of_file_managers_are_no_reason_to_refuse(self, output, tmp_path):
        for name in (".DS_Store", ".jobs/2026-01-01/0"):
            (tmp_path / "out/night" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "out/night" / name).write_text("litter")
        write(output, "night", a="1")
        assert content(tmp_path / "out/night") == {"a": "1", ".DS_Store": "litter", ".jobs/2026-01-01/0": "litter"}

    def test_a_folder_in_the_way_of_a_file_is_not_touched(self, output, tmp_path):
        write(output, "night", a="1")
        (tmp_path / "out/night/b").mkdir()
        with pytest.raises(BadInput, match="was not written by neurolit"):
            write(output, "night", a="2", b="2")
        assert content(tmp_path / "out") == {"night/a": "1"}

    @pytest.mark.parametrize("link", [False, True])
    def test_a_file_or_a_link_in_the_way_of_a_folder_is_not_touched(self, output, tmp_path, link):
        write(output, "night", a="1")
        if link:
            (tmp_path / "out/night/sub").symlink_to(tmp_path)
        else:
            (tmp_path / "out/night/sub").write_text("mine")
        with pytest.raises(BadInput, match="is a file or a link where a folder is to be written"):
            write(output, "night", a="2", sub__b="2")
        assert not (tmp_path / "b").exists()
        assert (tmp_path / "out/night/a").read_text() == "1"

    def test_a_link_is_followed(self, output, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "out/night").symlink_to(tmp_path / "disk")
        write(output, "night", a="1")
        write(output, "night", a="2")
        assert content(tmp_path / "disk") == {"a": "2"}
        assert (tmp_path / "out/night").is_symlink()

    @pytest.mark.parametrize("at", range(1, 7))
    def test_a_kill_while_files_are_moved_is_finished_by_the_same_command(self, tmp_path, at):
        output = OutputFolder(tmp_path / "out")
        write(output, "night", a="old", b="old", gone="old")
        (tmp_path / "out/night/mine").write_text("mine")

        def be_killed():
            seen = []

            def see(event, args):
                if event in ("os.rename", "os.remove"):
                    seen.append(event)
                    if len(seen) == at:
                        os.kill(os.getpid(), signal.SIGKILL)

            with output.folder("night") as part:
                for name in ("a", "b", "c"):
                    (part / name).write_text("new")
                sys.addaudithook(see)

        assert ended(fork(be_killed)) == -signal.SIGKILL
        write(output, "night", a="new", b="new", c="new")
        assert content(tmp_path / "out") == {f"night/{n}": "new" for n in "abc"} | {"night/mine": "mine"}
        assert sorted(os.listdir(tmp_path / "out")) == ["night"]


class TestFiles:
    def test_files_are_added_beside_those_of_other_runs(self, output, tmp_path):
        add(output, a="1", sub__b="1")
        add(output, c="1")
        add(output, a="2")
        assert content(tmp_path / "out") == {"a": "2", "c": "1", "sub/b": "1"}
        assert sorted(read_manifest(tmp_path / "out")["outputs"]) == ["a", "c", "sub/b"]

    def test_results_in_folders_are_no_reason_to_refuse_and_users_files_survive(self, output, tmp_path):
        write(output, "night", a="1")
        add(output, b="1")
        (tmp_path / "out/notes.txt").write_text("mine")
        add(output, b="2")
        assert content(tmp_path / "out") == {"b": "2", "night/a": "1", "notes.txt": "mine"}

    @pytest.mark.parametrize("name", ["d1.mat", "D2.mat", ".hidden", "folder/D2.mat"])
    def test_a_folder_of_recordings_is_refused(self, output, tmp_path, name):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True)
        path.write_text("raw")
        with pytest.raises(BadInput, match="which neurolit did not write; choose another output_dir"):
            add(output, **{"D2.mat": "simulated"})
        assert content(tmp_path / "out") == {name: "raw"}

    def test_a_users_file_of_the_same_name_is_not_replaced(self, output, tmp_path):
        add(output, a="1")
        (tmp_path / "out/b").write_text("mine")
        with pytest.raises(BadInput, match="b: is there already and was not written by neurolit"):
            add(output, a="2", b="2")
        assert content(tmp_path / "out") == {"a": "1", "b": "mine"}


class TestInputs:
    @pytest.mark.parametrize(
        ("root", "name", "relation"),
        [("data", "night", "contains"), ("data/night/deep", "x", "lies in"), (".", "data", "contains")],
    )
    def test_a_result_is_no_input_and_neither_contains_one_nor_lies_in_one(self, tmp_path, root, name, relation):
        (tmp_path / "data/night").mkdir(parents=True)
        (tmp_path / "data/night/night.edf").write_text("raw")
        given = tmp_path / "data/night" if relation == "lies in" else tmp_path / "data/night/night.edf"
        with pytest.raises(BadInput, match=f"{relation} the input"):
            write(OutputFolder(tmp_path / root, (given,)), name, a="1")
        assert content(tmp_path) == {"data/night/night.edf": "raw"}

    def test_files_are_not_added_to_the_input(self, tmp_path):
        (tmp_path / "data").mkdir()
        for given in (tmp_path / "data", tmp_path / "data" / ".." / "data"):
            with pytest.raises(BadInput, match="is the input"):
                add(OutputFolder(tmp_path / "data", (given,)), a="1")

    def test_a_link_to_the_input_is_the_input(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "data")
        with pytest.raises(BadInput, match="is the input"):
            refuse_overlap(tmp_path / "link", (tmp_path / "data",), "output_dir")

    def test_a_result_beside_the_input_is_accepted(self, tmp_path):
        (tmp_path / "night.edf").write_text("raw")
        write(OutputFolder(tmp_path, (tmp_path / "night.edf",)), "night", a="1")
        assert content(tmp_path) == {"night.edf": "raw", "night/a": "1"}


class TestNames:
    @pytest.mark.parametrize("name", ["", ".", "..", "...", ".hidden", "a/b", "a\\b", "/", "a\0", "a\nb"])
    def test_what_is_not_one_plain_component_is_refused(self, tmp_path, name):
        with pytest.raises(BadInput, match="cannot be the name of a result"):
            write(OutputFolder(tmp_path), name, a="1")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["n", "Nächte 1", "a.b", "..a"[2:], "SC4001E0-PSG", "n\udcff", "x" * LONGEST_NAME])
    def test_plain_names_stay(self, name):
        assert plain_name(name) == name

    @pytest.mark.parametrize("letter", ["x", "é"])
    def test_long_names_are_shortened_and_stay_different(self, tmp_path, letter):
        names = [letter * 240 + end for end in ("1", "2")]
        short = [plain_name(name) for name in names]
        assert len(set(short)) == 2
        assert all(len(os.fsencode(s)) <= LONGEST_NAME for s in short)
        write(OutputFolder(tmp_path), names[0], a="1")
        assert [p.name for p in tmp_path.iterdir()] == short[:1]

    def test_names_that_differ_in_case_or_suffix_alone_get_different_places(self):
        sources = [("n", "n.edf"), ("n", "n.EDF"), ("N", "N.edf"), ("m", "m.edf"), ("x", "1/x.edf"), ("x", "2/x.edf")]
        names = distinct_names(sources)
        assert len({name.casefold() for name in names}) == len(names)
        assert names[3] == "m"
        assert names == distinct_names(sources)

    def test_a_result_made_from_another_file_keeps_its_place(self, output, tmp_path):
        with output.folder("n") as part:
            write_manifest(part, {"inputs": {"psg": {"name": "n.edf"}}})
        (Path(output.root) / "d.json").write_text('{"recording": {"name": "d.mat"}}')
        same = output.names([("n", "other/n.edf"), ("d", "d.mat"), ("x", "x.edf")])
        assert same == ["n", "d", "x"]
        others = output.names([("n", "n.EDF"), ("d", "d.npy"), ("..", "...edf")])
        assert others[0].startswith("n-")
        assert others[1].startswith("d-")
        assert others == output.names([("n", "n.EDF"), ("d", "d.npy"), ("..", "...edf")])

    def test_a_file_of_the_same_name_in_another_folder_gets_another_place(self, output, tmp_path, capsys):
        files = {folder: tmp_path / folder / "n.edf" for folder in ("one", "two")}
        for folder, path in files.items():
            path.parent.mkdir()
            path.write_text(folder)
        with output.folder("n") as part:
            write_manifest(part, {"inputs": {"psg": source_record(files["one"])}})
        assert output.names([("n", files["one"])]) == ["n"]
        (other,) = output.names([("n", files["two"])])
        assert other.startswith("n-")
        assert f"was made from another file; this result goes to {other}" in capsys.readouterr().err
        with output.folder(other) as part:
            write_manifest(part, {"inputs": {"psg": source_record(files["two"])}})
        assert output.names([("n", files["two"])]) == [other]
        files["one"].write_text("corrected")
        assert output.names([("n", files["one"])]) == ["n"]
        moved = files["one"].rename(tmp_path / "n.edf")
        moved.write_text("one")
        assert output.names([("n", moved)]) == ["n"]


def test_a_manifest_is_one_json_object_with_its_checksum(output, tmp_path):
    write(output, "night", a="1")
    assert set(json.loads((tmp_path / "out/night" / MANIFEST).read_text())) == {"schema", "outputs", "checksum"}
