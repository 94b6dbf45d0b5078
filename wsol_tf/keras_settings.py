"""Whether Keras is set up as this project needs it, said before anything fails because of it."""

import json
import os
import sys
import types

NEEDED = {"backend": "tensorflow", "image_data_format": "channels_last", "floatx": "float32"}


class UnusableKeras(ValueError):
    """Keras is set to another backend, order of dimensions or precision than is needed."""


def check() -> None:
    """Refuses settings of Keras with which no model of this project can be built.

    Keras takes them from KERAS_BACKEND and keras.json when it is first imported. Where a user set
    them for another project, what follows would explain nothing: a module that is not there, or an
    output size of zero.

    Raises:
        UnusableKeras: where nobody handles it, Python prints its sentence alone.
    """
    try:
        if "keras.config" in sys.modules:
            _check_what_is_set(sys.modules["keras.config"])
        else:
            _check_what_is_asked_for()
    except UnusableKeras:
        sys.excepthook = _say_sentence
        raise


def _check_what_is_asked_for():
    """Looks at the environment and at keras.json as Keras would, before it does."""
    path = os.path.join(_home(), "keras.json")
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError, RecursionError):
        settings = {}  # Keras does without it, too
    if not isinstance(settings, dict):
        raise UnusableKeras(f"{path} holds no settings of Keras: repair or remove it.")
    backend = os.environ.get("KERAS_BACKEND")
    if backend:
        _refuse_other("backend", backend, "the environment variable KERAS_BACKEND")
        settings.pop("backend", None)  # the variable wins
    for name in NEEDED:
        _refuse_other(name, settings.get(name, NEEDED[name]), path)
    epsilon = settings.get("epsilon", 1e-7)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1e-2:
        raise UnusableKeras(
            f"epsilon of Keras must be a small number such as 1e-07. Received: {epsilon!r}, from "
            f"{path}. Repair or remove it."
        )


def _check_what_is_set(keras_config: types.ModuleType) -> None:
    """Looks at what Keras has been set to, by whatever means."""
    for name in NEEDED:
        _refuse_other(name, getattr(keras_config, name)(), "keras.config")


def _refuse_other(name, value, place):
    needed = NEEDED[name]
    if value == needed:
        return
    change = "set KERAS_BACKEND=tensorflow before Python starts"
    if name != "backend":
        change = f"change it there, or point KERAS_HOME to a folder of your own for {needed!r}"
    raise UnusableKeras(
        f"This project needs Keras with {name} '{needed}': {change}. Received: {value!r}, from "
        f"{place}."
    )


def _home():
    """The folder in which Keras looks for its settings."""
    if "KERAS_HOME" in os.environ:
        return os.environ["KERAS_HOME"]
    home = os.path.expanduser("~")
    return os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")


def _say_sentence(kind, error, trace):
    if issubclass(kind, UnusableKeras):
        print(f"Error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
