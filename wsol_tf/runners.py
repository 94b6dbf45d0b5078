"""`--runner`: the pictures are shared among the workers of an engine, by Apache Beam.

What programs share of it: the flag, Beam's own options behind `--`, and what is refused before
anything is loaded. Apache Beam is optional, and imported by `wsol_tf.beam` alone.
"""

import importlib
import logging
import types
from collections.abc import Sequence
from typing import Any

from absl import flags

flags.disclaim_key_flags()  # a flag that a program has made here is its own: --help lists it

# Name -> runner of Apache Beam.
RUNNERS = {
    "direct": "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "portable": "PortableRunner",
}
MISSING = (
    "`runner` needs Apache Beam, which is not installed here. It wants older pillow and protobuf "
    "than requirements.txt has, so it has an environment of its own: pip install -r "
    "requirements-beam.txt, or pip install 'wsol_tf[beam]', in a new one."
)


def define_flag() -> None:
    """Defines --runner."""
    flags.DEFINE_enum(
        "runner",
        None,
        list(RUNNERS),
        "Has an engine share the pictures among its workers, by Apache Beam; Beam's own options "
        "come last, after ' -- '. See docs/beam.md. Default: this process.",
    )


def check(values: flags.FlagValues, options: Sequence[str]) -> None:
    """Refuses what can't go together, before anything is loaded.

    Args:
        values: parsed flags.
        options: what came after `--`.

    Raises:
        ValueError: options without a runner or of another form than --name=value, Apache Beam is
            missing, or a flag that only one process can keep.
    """
    if not values.runner:
        if options:
            raise ValueError(
                "What comes after -- are options of Apache Beam, and go with `runner`, such as "
                "`runner=direct`; a picture whose name begins with - is named as ./-NAME. "
                f"Received: '{options[0]}'."
            )
        return
    for option in options:
        if not option.startswith("--") or option == "--":
            raise ValueError(
                f"Options of Apache Beam are given as --name=value. Received: '{option}'."
            )
        if option.split("=")[0] == "--runner":
            raise ValueError("`runner` comes before --, where its names are shorter.")
    if values.on_bad_image == "fail":
        raise ValueError(
            "`on_bad_image=fail` ends at the first picture that can't be read, and workers do not "
            "know of each other: leave it out, and such pictures are named and counted."
        )
    if "workers" in values and values.workers:
        raise ValueError("`workers` are processes of this machine: name them or a `runner`.")
    beam()


def settings_of(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the value of each flag, for workers that are to do the same."""
    return {name: values[name].value for name in values}


def beam() -> types.ModuleType:
    """Imports `wsol_tf.beam`, and with it Apache Beam.

    Raises:
        ValueError: Apache Beam is not installed.
    """
    logging.disable(logging.WARNING)  # that parts for clouds are not installed
    try:
        importlib.import_module("wsol_tf.beam.engine")
        return importlib.import_module("wsol_tf.beam")
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        raise ValueError(MISSING) from None
    finally:
        logging.disable(logging.NOTSET)
