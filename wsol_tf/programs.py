"""What all command lines share: their output folder, how a threshold is named, how they end."""

import contextlib
import dataclasses
import os
import re
import shlex
import sys

from absl import flags

from wsol_tf.config import CHANGEABLE_ON_RESUME, RECIPES, Config

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it
PREEMPTED = 75  # "try again later" (EX_TEMPFAIL): the same command goes on from the checkpoint


def with_flags(text: str, flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """Turns the settings that a library names in backticks into the flags of this program.

    "Lower `batch_size`, or pass `resume=false`." becomes "Lower --batch_size, or pass
    --resume=false." What is no flag of this program loses its backticks.
    """

    def dashed(match):
        name, value = match.groups()
        return f"--{name}{value}" if name in flag_values else name + value

    return re.sub(r"`(\w+)((?:=[^`]*)?)`", dashed, text)


def say(text: str) -> None:
    """Prints a line of a library for the user of a program, see `with_flags`."""
    print(with_flags(text), flush=True)


class Preempted(BaseException):
    """A run was ended from outside and goes on when it is started again.

    Like KeyboardInterrupt it may come at any moment, and is no error that code would handle.
    """


def preempt(number, frame):
    """A handler of SIGTERM, for the time in which there is nothing to save."""
    raise Preempted("Ended by SIGTERM. Nothing is lost: the same command goes on.")


@contextlib.contextmanager
def plain_ending():
    """Turns what a user can mend into one sentence and status 1, Ctrl-C into status 130.

    A run that was preempted ends with status 75.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"Error: {with_flags(str(error))}")
    except Preempted as error:
        print(with_flags(str(error)), file=sys.stderr)
        sys.exit(PREEMPTED)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def make_output_dir(path):
    """Makes the folder that a program writes to; one that can't be is refused with a sentence."""
    if not path:
        raise ValueError("--output_dir is empty: name the folder that the results are written to.")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        what = "a file has this name" if os.path.isfile(path) else error.strerror
        raise ValueError(
            f"--output_dir '{path}' can't be made: {what}. Name another folder."
        ) from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"--output_dir '{path}' can't be written to. Name another folder.")


def command_line(program, values):
    """The command that repeats a run: each flag that was given, quoted, on a line.

    program: name of the module; values: parsed flags.
    """
    given = [shlex.quote(values[name].serialize()) for name in values if values[name].present]
    return " \\\n    ".join([f"python -m {program}", *given])


def parse_threshold(text):
    """Reads --threshold: 'stored', 'otsu' or a number in 0..1."""
    if text in ("stored", "otsu"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(
            f"--threshold is a number in 0..1, 'stored' or 'otsu'. Received: '{text}'."
        )
    return value


_DEFINERS = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_flags(names=None, *, flag_values=flags.FLAGS, **defaults):
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
        if choices and field.type is str:
            flags.DEFINE_enum(field.name, default, choices, text, flag_values=flag_values)
        else:
            _DEFINERS[field.type](field.name, default, text, flag_values=flag_values)


def from_flags(flag_values=flags.FLAGS) -> Config:
    """Makes a Config from parsed flags: a flag that was given wins over the recipe.

    Raises:
        ValueError: for a value that is not legal.
    """
    settings = {field.name: flag_values[field.name].value for field in dataclasses.fields(Config)}
    for name, value in RECIPES[settings["recipe"]].items():
        if not flag_values[name].present:
            settings[name] = value
    return Config(**settings)


def from_flagfile(path, *arguments) -> Config:
    """Makes a Config from a flagfile and further arguments (`--name=value`), as train does."""
    flag_values = flags.FlagValues()
    define_flags(flag_values=flag_values)
    flag_values(["", f"--flagfile={path}", *arguments])
    return from_flags(flag_values)


def to_flagfile(config: Config) -> str:
    """Writes every setting as a line of a flagfile, with its help text before it."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        text = str(value).lower() if isinstance(value, bool) else value
        lines += [f"# {field.metadata['help']}", f"--{field.name}={text}"]
    return "\n".join(lines) + "\n"


def differences(config: Config, path) -> list[str]:
    """What a run's run.flags has otherwise than a Config, as "--name=theirs (here: ours)".

    Settings in CHANGEABLE_ON_RESUME are left out. A file that can't be read is a difference.
    """
    try:
        other = from_flagfile(path)
    except (flags.Error, ValueError, OSError) as error:
        return [f"{path} can't be read ({error})"]
    names = (x.name for x in dataclasses.fields(Config) if x.name not in CHANGEABLE_ON_RESUME)
    return [
        f"--{name}={getattr(other, name)} (here: {getattr(config, name)})"
        for name in names
        if getattr(other, name) != getattr(config, name)
    ]
