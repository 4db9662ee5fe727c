"""What a mistake on the command line is answered with, before anything runs."""

import io
import re
import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console

from src import schema
from src.runs import command
from src.runs.command import user_errors
from src.signals import BadInput

schema.register()


def refused(verb, *arguments):
    with pytest.raises(BadInput) as caught:
        command.check_command(verb, list(arguments))
    return str(caught.value)


@pytest.mark.parametrize(
    ("verb", "arguments", "answer"),
    [
        ("train", ["experiment=sleep_cnn", "trainer.max_epoch=1"], r"did you mean trainer.max_epochs? It is 20 now"),
        ("train", ["experiment=sleep_cnn", "lrr=1"], "lrr is not a key; did you mean optimizer.lr? It is 0.002 now"),
        ("train", ["experiment=sleep_cnn", "patiance=1"], "did you mean patience? It is 8 now"),
        ("train", ["experiment=sleep_cnn", "debug=fats"], "debug=fats does not exist; did you mean debug=fast?"),
        ("train", ["experiment=sleep_cnn", "sweep=x"], "sweep=x does not exist; choose from: sleep_cnn"),
        ("train", ["experiment=sleep_cn"], "experiment=sleep_cn does not exist; did you mean experiment=sleep_cnn?"),
        ("train", ["-m", "experiment=sleep_cnn", "scheduler=step,stap"], "scheduler=stap does not exist; did you mean"),
        ("train", ["-m", "experiment=sleep_cnn", "sed=1,2"], "did you mean seed? It is 42 now"),
        ("train", ["experiment=sleep_cnn", "seed=x"], "Value 'x' of type 'str' could not be converted to Integer"),
        ("train", ["experiment=sleep_cnn", "scheduler=null"], "scheduler=null is none of the options; choose"),
        ("preprocess", [], "preprocess is not given; add preprocess=cascade_coo | "),
        ("infer", ["night.edf"], "'night.edf' is not of the form key=value"),
        ("infer", ["--input", "night.edf"], "--input is no option; a key has no dashes and an equals sign: input=…"),
        ("infer", ["input=x", "options.chanels=[C3]"], "did you mean options.channels? It is null now"),
        ("infer", ["inputt=night.edf"], "did you mean input?"),
        ("infer", ["inptu=night.edf"], "did you mean input?"),
        ("preprocess", ["preprocess=spectrogram", "windw=hann"], "did you mean window?"),
        ("train", ["experiment=sleep_cnn", "+test=false"], "test is no key; choose from: name, seed"),
        ("infer", ["input=x", "+source.fs=1"], "source.fs is no key; did you mean fs_hz?"),
        ("preprocess", ["preprocess=spectrogram", "input_dir=a", "+foo=1"], "foo is no key; choose from: input_dir"),
        (
            "train",
            ["experiment=sleep_cnn", "seed=1,2"],
            "seed has several values, 1,2; for a sweep add -m",
        ),
        ("train", ["experiment=sleep_cnn", "logger=wandb", "logger.entity=lab"], "to add it type +logger.entity=…"),
        ("train", ["experiment=sleep_cnn", "hydra.run.dir=x"], "hydra.run.dir: is not used: .*give runs_dir=<folder>"),
        ("train", ["experiment=sleep_cnn", "sweep=sleep_cnn"], "sweep=… is a search over many trainings; add -m"),
        ("train", ["-m", "experiment=sleep_cnn", "hydra.sweep.subdir=x"], "hydra.sweep.subdir: is not used"),
        ("train", ["-m", "experiment=sleep_cnn", "optimizer.lr=interval(1,2)"], "needs a search; add hydra/sweeper"),
        (
            "preprocess",
            ["-m", "preprocess=spectrogram", "output_dir=a", "nfft=1,2"],
            r"output_dir: .*/\$\{nfft\}",
        ),
        ("infer", ["input=x", "hydra.job.chdir=true"], "hydra.job.chdir: is not used: .*give output_dir=<folder>"),
        ("train", ["--config-dir", "/nowhere", "experiment=mine"], "/nowhere: is no folder"),
        ("train", ["experiment=sleep_cnn", "source=edf_folder", "source.root=~/a"], 'type: .*source.root="/'),
    ],
)
def test_a_mistake_is_answered_with_what_to_type(verb, arguments, answer):
    told = refused(verb, *arguments)
    assert answer in told or re.search(answer, told)
    assert "???" not in told


@pytest.mark.parametrize(
    "path",
    [
        "night (1).edf",
        "[x].edf",
        "a=b.edf",
        "it's.edf",
        "a,b.edf",
        "schläfer.edf",
        'a"b.edf',
        "a\\b'c.edf",
        "{a}",
        "1e3",
    ],
)
def test_the_command_for_an_awkward_path_can_be_pasted(path):
    try:
        command.check_command("infer", ["bundle=b", f"input=/data/{path}" if path != "1e3" else "input=1e3"])
    except BadInput as error:
        line = shlex.split(str(error).partition("type: ")[2])
        assert line[:3] == ["python", "infer.py", "bundle=b"]
        read = OverridesParser.create().parse_override(line[3]).value()
        assert str(read) == (path if path == "1e3" else f"/data/{path}")
        command.check_command("infer", line[2:])
    else:
        pytest.fail("Hydra reads it as it is")


def test_every_awkward_path_of_a_command_is_quoted_at_once():
    told = refused("infer", "input=/data/a (1).edf", "output_dir=/data/[out]", "list=true")
    command.check_command("infer", shlex.split(told.partition("type: ")[2])[2:])


def test_a_path_with_spaces_and_a_sweep_pass(tmp_path):
    step = ["-m", "preprocess=spectrogram", "input_dir=a"]
    command.check_command("preprocess", [*step, "output_dir=b", "part=1,2", "parts=2"])
    command.check_command("preprocess", [*step, "output_dir=b/${window_s}", "window_s=1,2"])
    command.check_command("infer", ["bundle=b", "input=/data/my night.edf"])
    train = ["experiment=sleep_cnn", "+width=32", "model.network_args.width=${width}"]
    command.check_command("train", ["-m", *train, "seed=1,2", "runs_dir=a,b", "scheduler=glob(*)"])
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/mine.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    command.check_command("train", [f"--config-dir={tmp_path}", *train, "sweep=mine"])


@pytest.mark.parametrize("own", ["-m", "--cfg=job", "hydra.verbose=true"])
def test_a_command_is_composed_once_unless_hydra_has_to_run_it(own):
    arguments = ["input=night.edf", own]
    assert command.check_command("infer", arguments[:1]).input == "night.edf"
    assert command.check_command("infer", arguments) is None


def colleague(tmp_path, text):
    (tmp_path / "run.yaml").write_text("defaults:\n  - train_schema\n  - frame\n  - _self_\n" + text)
    return refused("train", "--config-dir", str(tmp_path), "--config-name", "run")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("model: {_target_: numpy.load, file: x, allow_pickle: true}", "model._target_"),
        ("model: {lr: [{_target_: os.system, command: ls, _partial_: true}]}", "model.lr[0]._target_"),
        ("logger: {_target_: src.runs.folder.os.system, _args_: [ls]}", "logger._target_"),
        ("hydra: {callbacks: {x: {_target_: os.system, command: ls}}}", "hydra.callbacks.x._target_"),
        ("hydra: {sweeper: {_target_: subprocess.run}}", "hydra.sweeper._target_"),
        ("hydra: {job_logging: {handlers: {x: {(): os.system}}}}", "hydra.job_logging.handlers.x.()"),
    ],
)
def test_a_colleagues_configuration_runs_no_code(tmp_path, text, key):
    answer = colleague(tmp_path, text)
    assert answer.startswith(f"{key}: names ")
    assert "may not run" in answer


def test_a_pickle_of_a_job_is_not_loaded():
    assert "pickle" in refused("train", "--experimental-rerun", "x.pickle")


def plain_interrupt(cfg):
    raise KeyboardInterrupt


def interrupt_in_a_training(cfg):
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)  # as Lightning does


@pytest.mark.parametrize("stopped", [plain_interrupt, interrupt_in_a_training])
def test_ctrl_c_says_what_to_type(capsys, monkeypatch, stopped):
    monkeypatch.setattr(sys, "argv", ["infer.py", "bundle=b", "input=my night.edf"])
    with pytest.raises(SystemExit) as end:
        command.run_verb(stopped, "infer")
    assert end.value.code == 130
    assert capsys.readouterr().out.endswith("To go on: python infer.py bundle=b 'input=my night.edf'\n")


@pytest.mark.parametrize("verb", ["infer", "preprocess", "train"])
def test_help_is_printed_before_anything_runs(capsys, monkeypatch, verb):
    monkeypatch.setattr(sys, "argv", [f"{verb}.py", "--help"])
    command.run_verb(plain_interrupt, verb)
    assert capsys.readouterr().out.count(f"python {verb}.py") >= 3


def refuse(source: str) -> None:
    raise BadInput(source, "no channel [fpz] among [cz]", "name one with channel=")


def stumble() -> None:
    raise ZeroDivisionError


def said(config) -> str:
    """What a verb prints before it ends with status 2."""
    stream = io.StringIO()
    with pytest.raises(SystemExit) as left, user_errors(Console(file=stream)):
        instantiate(OmegaConf.create(config))
    assert left.value.code == 2
    return stream.getvalue()


def test_bad_input_is_found_inside_the_error_of_a_constructor():
    config = {"_target_": f"{__name__}.refuse", "source": "night.edf"}
    assert said(config) == "error night.edf: no channel [fpz] among [cz]; name one with channel=\n"


def test_a_key_that_was_not_given_is_asked_for():
    config = {"_target_": f"{__name__}.refuse", "source": "???"}
    assert said(config) == "error command line: source is not given; add source=…\n"


def test_a_variable_of_the_environment_that_is_not_set_is_named():
    config = {"_target_": f"{__name__}.refuse", "source": "${oc.env:NOT_SET}"}
    assert said(config).startswith("error command line: KeyError raised while resolving interpolation")


def test_an_error_of_our_own_keeps_its_traceback():
    with pytest.raises(InstantiationException), user_errors(Console(file=io.StringIO())):
        instantiate(OmegaConf.create({"_target_": f"{__name__}.stumble"}))
    with pytest.raises(ZeroDivisionError), user_errors(Console(file=io.StringIO())):
        stumble()
