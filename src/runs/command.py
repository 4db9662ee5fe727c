"""What the three commands share: help, checks of the command line before anything runs, errors in one line, Ctrl-C.

Hydra composes and runs the configuration. What it says about a mistake on the command line is written for its own
developers, so the command is composed here once before, and a mistake is answered with what to type.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import CompactHydraException, ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from rich.console import Console

from src.runs.help import help_text, options
from src.runs.targets import check_keys, check_targets, written_arguments
from src.signals import BadInput, nearest
from src.storage.progress import say

CONF = Path(__file__).resolve().parents[2] / "conf"
PATHS = (
    "bundle",
    "input",
    "input_dir",
    "output_dir",
    "runs_dir",
    "cache_dir",
    "models_dir",
    "template_from",
    "truth",
    "recipe",
)
"""Last names of keys whose value is a path, never a number or a list."""


@contextmanager
def user_errors(console: Console) -> Iterator[None]:
    """Print a :class:`BadInput` raised in the block as one line and :func:`exit_with` with status 2.

    Found also where Hydra hides it, inside the error of a constructor it was calling. A key that was not given, one
    that cannot be interpolated, and what Lightning calls a misconfiguration are bad inputs too.
    """
    try:
        yield
    except Exception as error:
        bad = bad_input(error)
        if bad is None:
            raise
        say(console, str(bad), label="error", style="red")
        exit_with(2, because=bad)


class JobFailed(CompactHydraException):
    """A job of a multirun that ended badly; Hydra prints no traceback of it."""


def exit_with(status: int, because: Exception | None = None) -> None:
    """End the process with this status; in a multirun, whose other jobs have to go on, fail this job alone."""
    if not (HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN):
        sys.exit(status)
    if status:
        raise JobFailed(because or "see above") from because


def bad_input(error: BaseException | None) -> BadInput | None:
    """What the user has to fix, if anything in the chain of causes says so."""
    while error is not None:
        if isinstance(error, BadInput):
            return error
        if isinstance(error, MissingMandatoryValue):
            return BadInput("command line", f"{error.full_key} is not given", f"add {error.full_key}=…")
        text = " ".join(str(error).split())
        if isinstance(error, OmegaConfBaseException):
            return BadInput(error.full_key or "command line", text.partition(" full_key:")[0], "correct the value")
        if type(error).__name__ == "MisconfigurationException" or text.startswith("Early stopping conditioned"):
            return BadInput("trainer", text[:300].rstrip("."), "change trainer or callbacks")
        error = error.__cause__
    return None


def run_verb(main: Callable[..., Any], verb: str) -> None:
    """Run ``main``, a function under ``hydra.main``, on this process's command line.

    Parameters
    ----------
    main
        The decorated function.
    verb
        ``train``, ``infer`` or ``preprocess``: the name of its primary configuration.
    """
    console = Console()
    try:
        if {"-h", "--help"} & set(sys.argv[1:]):
            try:
                print(help_text(verb, sys.argv[1:]), flush=True)
            except BrokenPipeError:  # of `| head`; Python would complain once more when it closes the stream
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        with user_errors(console):
            cfg = check_command(verb, sys.argv[1:])
        main() if cfg is None else main(cfg)
    except (KeyboardInterrupt, SystemExit) as end:
        # Lightning turns Ctrl-C into an exit of its own.
        if not isinstance(end, KeyboardInterrupt) and not isinstance(end.__context__, KeyboardInterrupt):
            raise
        say(console, f"interrupted; what is finished is kept. To go on: {command_line(sys.argv)}", style="yellow")
        sys.exit(130)


def command_line(argv: list[str]) -> str:
    """The command that was typed, in the quotes that a shell needs."""
    return shlex.join(["python", os.path.relpath(argv[0]) if os.path.isabs(argv[0]) else argv[0], *argv[1:]])


def check_command(verb: str, arguments: list[str]) -> DictConfig | None:
    """Compose the configuration of a command line and refuse what is wrong with it.

    Returns
    -------
    The configuration, or ``None`` where Hydra has to run the verb: for a training, a sweep, or one of its own options.

    Raises
    ------
    BadInput
        For a value that Hydra's grammar reads as something else, an unknown key, or a configuration that names
        code it may not run.
    """
    given, unknown = get_args_parser().parse_known_args(arguments)
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        raise BadInput(
            "command line", f"{unknown[0]} is no option", f"a key has no dashes and an equals sign: {name}=…"
        )
    if given.experimental_rerun:
        raise BadInput(
            "--experimental-rerun", "loads a pickle, which can run any code", "repeat a run with its run.yaml"
        )
    if given.hydra_help or given.info or given.shell_completion:
        return None
    if given.config_dir and not Path(given.config_dir).is_dir():
        raise BadInput(given.config_dir, "is no folder", "give --config-dir a folder of configurations")
    multirun = given.multirun or "hydra.mode=MULTIRUN" in given.overrides
    parsed = [_parsed(text, verb, arguments, multirun=multirun) for text in given.overrides]
    name, lines = given.config_name or verb, [_first_value(override) for override in parsed]
    try:
        for others in _other_options(parsed, lines):
            compose(name, others, config_dir=given.config_dir, config_path=given.config_path)
        cfg = compose(name, lines, config_dir=given.config_dir, config_path=given.config_path)
    except MissingConfigException as error:
        raise _missing(error, verb) from error
    except ConfigCompositionException as error:
        raise _explained(error, parsed, lambda others: compose(name, others, config_dir=given.config_dir)) from error
    except ValueError as error:  # Hydra's, of a group of options
        nulls = [override.key_or_group for override in parsed if override.value() is None]
        if not nulls:
            raise
        group = nulls[0]
        hint = f"choose one of conf/{group}, or leave it out: '~{group}'"
        raise BadInput("command line", f"{group}=null is none of the options", hint) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput("command line", " ".join(str(error).split()), f"see python {verb}.py --help") from error
    _refuse_unused(cfg, parsed, verb, multirun=multirun)
    _refuse_one_output(verb, parsed)
    check_targets(cfg.hydra, within="hydra")
    with open_dict(cfg):
        del cfg["hydra"]
    _refuse_added_keys(cfg)
    if verb == "train":
        check_keys(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
    check_targets(cfg)
    once = verb != "train" and lines == arguments and not any(o.key_or_group.startswith("hydra") for o in parsed)
    return cfg if once else None


def _refuse_unused(cfg: DictConfig, parsed: list[Override], verb: str, *, multirun: bool) -> None:
    """Refuse what Hydra would pass over: places that runs are not kept in, and searches without a sweeper."""
    basic = "basic_sweeper" in cfg.hydra.sweeper["_target_"]
    for override in parsed if verb == "train" else []:
        key = override.key_or_group
        if key == "sweep" and not multirun and cfg.hydra.mode != RunMode.MULTIRUN:
            raise BadInput("command line", "sweep=… is a search over many trainings", "add -m")
        if key == "hydra.sweep.subdir":
            raise BadInput(key, "is not used: jobs are found by their number", "leave it out")
        if override.is_sweep_override() and not override.is_discrete_sweep() and basic:
            raise BadInput(key, "is an interval, which needs a search", "add hydra/sweeper=optuna, or list values")
    if cfg.hydra.run.dir != "." or cfg.hydra.job.chdir:
        key = "hydra.job.chdir" if cfg.hydra.job.chdir else "hydra.run.dir"
        hint = f"give {'runs_dir' if verb == 'train' else 'output_dir'}=<folder> instead"
        raise BadInput(key, "is not used: interrupted runs are found by their content", hint)


def _refuse_one_output(verb: str, parsed: list[Override]) -> None:
    """Refuse a sweep over parameters whose jobs would replace one another's results in one ``output_dir``."""
    given = {override.key_or_group: override for override in parsed}
    swept = [key for key, override in given.items() if override.is_sweep_override()]
    output = str(given["output_dir"].input_line) if "output_dir" in given else ""
    other = [key for key in swept if key not in ("input", "input_dir", "only", "part")]
    if verb != "train" and other and "output_dir" not in swept and "${" not in output:
        problem = f"is the same for every {other[0]}, so that each job would replace the result of the one before"
        raise BadInput("output_dir", problem, f"give a folder for each: 'output_dir=<folder>/${{{other[0]}}}'")


def _refuse_added_keys(cfg: DictConfig) -> None:
    """Refuse what ``+key=…`` has added to a part that has a schema: nobody would read it."""
    plain: Any = OmegaConf.to_container(cfg)
    text = OmegaConf.to_yaml(cfg)
    for block in (None, *plain):
        schema: Any = OmegaConf.get_type(cfg, block)
        for key in (plain if block is None else plain[block]) if is_dataclass(schema) else ():
            known = [field.name for field in fields(schema)]
            if key not in known and f"${{{key}}}" not in text:  # what another key refers to is read
                near = nearest(key, known)
                hint = f"did you mean {near}?" if near else f"choose from: {', '.join(known)}"
                raise BadInput("command line", f"{f'{block}.' if block else ''}{key} is no key", hint)


def compose(
    name: str, overrides: list[str], *, config_dir: str | None = None, config_path: str | None = None
) -> DictConfig:
    """The configuration that Hydra would compose, with Hydra's own part under ``hydra``."""
    path = create_config_search_path(str(Path(config_path).resolve()) if config_path else str(CONF))
    if config_dir:
        # Hydra wants its structured schemas last.
        path.prepend("command-line", f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema"))
    hydra = Hydra.create_main_hydra2(task_name=name, config_search_path=path)
    try:
        return hydra.compose_config(name, overrides, run_mode=RunMode.RUN, with_log_configuration=False)
    finally:
        GlobalHydra.instance().clear()


def _parsed(text: str, verb: str, arguments: list[str], *, multirun: bool) -> Override:
    """One ``key=value`` of the command line, as Hydra reads it."""
    key, equals, _ = text.partition("=")
    if not equals and not text.startswith("~"):
        hint = f"did you mean input={text}?" if Path(text).exists() else f"see python {verb}.py --help"
        raise BadInput("command line", f"{text!r} is not of the form key=value", hint)
    override = _override(text, multirun=multirun)
    if override is not None:
        if override.is_sweep_override() and not multirun:
            value = text.partition("=")[2]
            hint = f"for a sweep add -m; for one list give '{key}=[{value}]'"
            raise BadInput("command line", f"{key} has several values, {value}", hint)
        return override
    again = [
        f"{name}={hydra_quoted(os.path.expanduser(value))}"  # no shell looks for a home behind an equals sign
        if equals and not name.startswith("-") and _override(argument, multirun=multirun) is None
        else argument
        for argument in arguments
        for name, equals, value in [argument.partition("=")]
    ]
    problem = "Hydra reads the characters of this value as its own syntax"
    raise BadInput(key, problem, f"type: {command_line([f'{verb}.py', *again])}")


def _override(text: str, *, multirun: bool) -> Override | None:
    """One argument as Hydra reads it; ``None`` where its value needs quotes."""
    key, _, value = text.partition("=")
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return None
    if key.rpartition(".")[2] not in PATHS and not (os.sep in value and Path(value).exists()):
        return override
    if override.is_sweep_override():
        return override if multirun else None
    read: Any = override.value()  # of a path Hydra may make a number, a list or a mapping
    same = read is None or isinstance(read, str) or (isinstance(read, int | float) and str(read) == value)
    return override if same else None


def hydra_quoted(value: str) -> str:
    """``value`` in quotes, so that Hydra's grammar takes it as it is."""
    quote = "'" if '"' in value else '"'
    # Inside quotes Hydra takes a backslash as it is, unless it stands before a quote.
    escaped = re.sub(rf"(\\*)({quote}|$)", lambda m: m[1] * 2 + (f"\\{quote}" if m[2] else ""), value).replace(
        "${", r"\${"
    )
    return f"{quote}{escaped}{quote}"


def _first_value(override: Override) -> str:
    """The override, or for a sweep its first value: enough to compose one job."""
    if not override.is_sweep_override():
        return str(override.input_line)
    key = override.get_key_element()
    if override.is_discrete_sweep():
        return f"{key}={_values(override)[0]}"
    interval: Any = override.value()
    return f"{key}={interval.start}"


def _other_options(parsed: list[Override], lines: list[str]) -> Iterator[list[str]]:
    """For a sweep over options of groups the command with each further option: a missing one would end the sweep."""
    for place, override in enumerate(parsed):
        if override.is_discrete_sweep() and options(override.key_or_group):
            for value in _values(override)[1:]:
                yield [*lines[:place], f"{override.get_key_element()}={value}", *lines[place + 1 :]]


def _values(override: Override) -> list[str]:
    """All values of a discrete sweep."""
    value = override.value()
    if isinstance(value, Glob):
        return [str(name) for name in value.filter(options(override.key_or_group))] or ["none"]
    return list(override.sweep_string_iterator())


def _missing(error: MissingConfigException, verb: str) -> BadInput:
    """What to choose instead of an option that a group does not have."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    known = list(error.options or [])
    if not group or not known:
        return BadInput("command line", " ".join(str(error).split()), f"see python {verb}.py --help")
    near = nearest(option, known)
    hint = f"did you mean {group}={near}?" if near else f"choose from: {', '.join(known)}"
    return BadInput("command line", f"{group}={option} does not exist", hint)


def _explained(
    error: ConfigCompositionException, parsed: list[Override], again: Callable[[list[str]], DictConfig]
) -> BadInput:
    """What to type instead of an override that does not fit the configuration."""
    message = " ".join(str(error).split())
    if group := re.search(r"You must specify '(\w+)'", message):
        return BadInput("command line", f"{group[1]} is not given", f"add {group[1]}={' | '.join(options(group[1]))}")
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown is None:
        reason = str(error.__cause__ or "").partition("\n")[0]
        return BadInput("command line", f"{message} ({reason})" if reason else message, "see --help")
    key, hint = unknown[1], "see --help"
    with suppress(HydraException, OmegaConfBaseException):
        cfg = again([_first_value(o) for o in parsed if o.get_key_element().lstrip("+~") != key])
        near = nearest(key, [name for name in flat_keys(cfg) if not name.startswith("hydra.")])
        if near is not None:
            absent = OmegaConf.is_missing(cfg, near) if "." not in near else False
            value = OmegaConf.select(cfg, near)
            now = "" if absent else f" It is {'null' if value is None else value} now"
            hint = f"did you mean {near}?{now}"
        block, _, name = key.rpartition(".")
        target = OmegaConf.select(cfg, f"{block}._target_") if block else None
        if target and name in (written_arguments(target) or ()):
            hint = f"to add it type +{key}=…"
    return BadInput("command line", f"{key} is not a key", hint)


def flat_keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration with its dots."""
    names: Iterable[Any] = config if isinstance(config, dict | DictConfig) else ()
    for name in names:
        yield f"{prefix}{name}"
        below = config._get_node(name) if isinstance(config, DictConfig) else config[name]
        yield from flat_keys(below, f"{prefix}{name}.")
