"""What the command lines share: flags made from settings, one way to start and one way to end."""

import contextlib
import dataclasses
import inspect
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

from wsol_tf import files, progress, quiet, signals
from wsol_tf.config import CHANGEABLE_ON_RESUME, RECIPES, Config

# Flags that a program has made here are its own: --help lists them.
flags.disclaim_key_flags()


# --- from a command line to an exit status -------------------------------------------------------


def main(define_flags: Callable[[], None], run: Callable[..., int | None]) -> None:
    """Runs a program from its command line to its exit status; does not return.

    Args:
        define_flags: defines the flags of the program.
        run: what the program does, see `call`.
    """
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal can't show is no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    define_flags()
    app.run(lambda argv: _call_quietly(run, argv), prepared(sys.argv))


def _call_quietly(run, argv):
    """Calls a program; libraries say no more than --verbosity asks for, which is warnings."""
    verbosity = flags.FLAGS["verbosity"]
    level = verbosity.value if verbosity.present else logging.WARNING
    logging.set_verbosity(level)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", str(min(max(-level, 0), 3)))
    if level < logging.INFO:
        quiet.hush()
    call(run, argv)


def call(run: Callable[..., int | None], argv: Sequence[str]) -> None:
    """Calls `run(flags.FLAGS, *arguments)` and ends the process where it does not succeed.

    Args:
        run: what the program does. Its signature says how many arguments that are no flags it
            takes: `run(values)` takes none, `run(values, *paths)` any number of paths, in which
            `~` and `$NAME` are expanded. One with `*, options` takes what comes after `--` apart.
            It returns the exit status; None is success.
        argv: name of the program, and the arguments that are left when flags are parsed.

    Raises:
        app.UsageError: an argument that the program does not take.
        SystemExit: the program did not succeed, see `plain_ending`.
    """
    at = argv.index("--") if "--" in argv else len(argv)
    paths, apart = list(argv[1:at]), {"options": list(argv[at + 1 :])}
    if "options" not in inspect.signature(run).parameters:
        paths += apart.pop("options")
    try:
        inspect.signature(run).bind(flags.FLAGS, *paths, **apart)
    except TypeError:
        raise app.UsageError(
            f"Unknown argument '{paths[0]}': settings are given as --name=value."
        ) from None
    with plain_ending():
        status = run(flags.FLAGS, *map(files.expanded, paths), **apart)
    if status:
        sys.exit(status)


@contextlib.contextmanager
def plain_ending() -> Iterator[None]:
    """Turns an error that the user can fix into a sentence and status 1, Ctrl-C into status 130.

    A run that was preempted ends with status 75, what else got SIGTERM with 143. A second signal
    ends the process even while it is inside a step that takes long, see `signals.watched`.
    """
    with signals.watched(say_error):
        try:
            yield
        except OSError as error:
            progress.clear()
            sys.exit(f"Error: {shown(_sentence(error))}")
        except (ValueError, FloatingPointError) as error:
            progress.clear()
            sys.exit(f"Error: {shown(str(error))}")
        except signals.Preempted as error:
            say_error(str(error))
            sys.exit(signals.PREEMPTED)
        except signals.Terminated:
            say_error("\nEnded by SIGTERM.")
            sys.exit(signals.TERMINATED)
        except KeyboardInterrupt:
            say_error("\nInterrupted.")
            sys.exit(signals.INTERRUPTED)


def _sentence(error):
    """What an error of the operating system says: the file and the reason, without a number."""
    if error.errno is None or not error.strerror:
        return str(error)
    if error.filename is None:
        return f"{error.strerror}, while a file was read or written."
    return f"'{os.fsdecode(error.filename)}' can't be read or written: {error.strerror}."


# --- what programs print and take ----------------------------------------------------------------


def with_flags(text: str, flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """Turns the settings that a library names in backticks into the flags of this program.

    "Lower `batch_size`, or pass `resume=false`." becomes "Lower --batch_size, or pass
    --resume=false." What is no flag of this program loses its backticks.
    """

    def dashed(match: re.Match) -> str:
        name, value = match.groups()
        is_flag = name in flag_values or name == "flagfile"  # every program takes a flagfile
        return f"--{name}{value}" if is_flag else name + value

    return re.sub(r"`(\w+)((?:=[^`]*)?)`", dashed, text)


def shown(text: str) -> str:
    """Makes text of a library fit for the terminal: flags, and no control characters but newlines.

    Names of files and classes stand in it, and a terminal would obey what they hold.
    """
    return "\n".join(map(files.printable, with_flags(text).split("\n")))


def say(text: str) -> None:
    """Prints a line of a library for the user of a program, see `shown`."""
    progress.clear()
    print(shown(text), flush=True)


def say_error(text: str) -> None:
    """Prints a line apart from what a program is asked for, see `shown`."""
    progress.clear()
    print(shown(text), file=sys.stderr, flush=True)


def make_output_dir(path: str) -> None:
    """Makes the folder that results are written to.

    Raises:
        ValueError: the path is empty, or the folder can't be made or written to.
    """
    if not path:
        raise ValueError("`output_dir` is empty: name the folder that the results are written to.")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        what = "a file has this name" if os.path.isfile(path) else error.strerror
        raise ValueError(
            f"`output_dir` '{path}' can't be made: {what}. Name another folder."
        ) from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"`output_dir` '{path}' can't be written to. Name another folder.")


def keep_output_dir(path: str, log: Callable[[str], None] = say) -> None:
    """Makes a folder of `make_output_dir` again where it was removed meanwhile, and says so.

    Raises:
        ValueError: see `make_output_dir`.
    """
    if not os.path.isdir(path):
        make_output_dir(path)
        log(f"'{path}' was removed or renamed while the program was running; it is made again.")


def command_line(program: str, values: flags.FlagValues, options: Sequence[str] = ()) -> str:
    """Returns the command that repeats a run: every flag that was given, quoted, on its own line.

    Args:
        program: full name of the program's module.
        values: the parsed flags.
        options: what came after `--`.
    """
    given = [values[name].serialize() for name in values if values[name].present]
    given += ["--", *options] if options else []
    return " \\\n    ".join([f"python -m {program}", *map(shlex.quote, given)])


def parse_threshold(text: str) -> float | str:
    """Reads a score-map threshold: a number in 0..1, 'stored' or 'otsu'.

    Raises:
        ValueError: it is none of them.
    """
    if text in ("stored", "otsu"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(
            f"`threshold` must be a number in 0..1, 'stored' or 'otsu'. Received: '{text}'."
        )
    return value


# --- files of settings ---------------------------------------------------------------------------

CONFIGS = os.path.join(os.path.dirname(__file__), "configs")


def find_config(path: str) -> str:
    """Returns the path of a file of settings: the one that is named, or else the package's own.

    Args:
        path: such as `my.flags`; where no such file is, `voc.flags`, `configs/voc.flags` and
            `studies/parts.study` are those of the package.
    """
    own = os.path.join(CONFIGS, path.removeprefix("configs/"))
    return path if os.path.exists(path) or not os.path.isfile(own) else own


def prepared(argv: Sequence[str]) -> list[str]:
    """Returns a command line for absl: every --flagfile is a path, see `find_config`.

    The first `--` stands twice, since absl takes one away.
    """
    at = argv.index("--") if "--" in argv else len(argv)
    found, rest = [], argv[at:]
    for before, argument in zip(["", *argv], argv[:at], strict=False):
        flag, is_value, path = argument.partition("=")
        if is_value and flag.lstrip("-") == "flagfile":
            argument = f"{flag}={find_config(path)}"
        elif before in ("--flagfile", "-flagfile"):
            argument = find_config(argument)
        found.append(argument)
    return [*found, *rest[:1], *rest]


# --- settings as flags ---------------------------------------------------------------------------


class _Path(flags.ArgumentParser):
    """A path, in which `~` and environment variables are expanded."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        """Returns the path as a shell would understand it."""
        return files.expanded(argument)

    def flag_type(self) -> str:
        """Returns the type that --help shows."""
        return "path"


def define_path(
    name: str,
    default: str | None,
    help: str,
    *,
    required: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Defines a flag that is a path: `~` and `$NAME` in it are expanded, as a shell does.

    Behind `--name=` and in a flagfile no shell does it.
    """
    serializer = flags.ArgumentSerializer()
    flags.DEFINE(_Path(), name, default, help, flag_values, serializer, required=required)


_DEFINERS: dict[Any, Callable] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_flags(
    names: Sequence[str] | None = None,
    *,
    flag_values: flags.FlagValues = flags.FLAGS,
    **defaults: Any,
) -> None:
    """Defines one absl flag per setting.

    Args:
        names: settings to define; None defines all.
        flag_values: where the flags are defined.
        **defaults: values that a program starts from instead of Config's.
    """
    for field in dataclasses.fields(Config):
        if names is not None and field.name not in names:
            continue
        default = defaults.get(field.name, field.default)
        text = field.metadata["help"]
        choices = field.metadata["choices"]
        if field.metadata["path"]:
            define_path(field.name, default, text, flag_values=flag_values)
        elif choices and field.type is str:
            flags.DEFINE_enum(field.name, default, choices, text, flag_values=flag_values)
        else:
            _DEFINERS[field.type](field.name, default, text, flag_values=flag_values)


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """Makes a Config from parsed flags: a flag that was given wins over the recipe.

    Raises:
        ValueError: a value is not legal.
    """
    settings = {field.name: flag_values[field.name].value for field in dataclasses.fields(Config)}
    for name, value in RECIPES[settings["recipe"]].items():
        if not flag_values[name].present:
            settings[name] = value
    return Config(**settings)


def from_flagfile(path: str | os.PathLike, *arguments: str) -> Config:
    """Makes a Config from a flagfile and further arguments (`--name=value`), as train does."""
    flag_values = flags.FlagValues()
    define_flags(flag_values=flag_values)
    flag_values(["", f"--flagfile={find_config(os.fspath(path))}", *arguments])
    return from_flags(flag_values)


def from_arguments(*arguments: str) -> Config:
    """Makes a Config from the arguments of a command line (`--name=value`), as train does.

    Raises:
        ValueError: an argument is no setting, or its value is not legal.
    """
    flag_values = flags.FlagValues()
    define_flags(flag_values=flag_values)
    try:
        flag_values(["", *arguments])
    except flags.Error as error:
        raise ValueError(str(error)) from None
    return from_flags(flag_values)


def to_flagfile(config: Config) -> str:
    """Returns the text of a flagfile: every setting on a line, with its help before it."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        text = str(value).lower() if isinstance(value, bool) else value
        lines += [f"# {field.metadata['help']}", f"--{field.name}={text}"]
    return "\n".join(lines) + "\n"


def differences(config: Config, path: str | os.PathLike) -> list[str]:
    """Names the settings in which the run.flags of a run differs from a Config.

    Settings that may change when a run is resumed are left out.

    Returns:
        A list of "`name=theirs` (here: ours)". A file that can't be read is a difference too.
    """
    try:
        other = from_flagfile(path)
    except (flags.Error, ValueError, OSError) as error:
        return [f"'{path}' can't be read ({error})"]
    names = (x.name for x in dataclasses.fields(Config) if x.name not in CHANGEABLE_ON_RESUME)
    return [
        f"`{name}={getattr(other, name)}` (here: {getattr(config, name)})"
        for name in names
        if getattr(other, name) != getattr(config, name)
    ]
