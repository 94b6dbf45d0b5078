"""Faces of packages: names that are looked up when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable
from typing import Any


def attach(
    package: str, places: dict[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Makes what a package needs whose public names live in its modules.

    Importing the package then imports none of them, and with them neither TensorFlow nor Keras.

    Args:
        package: full name of the package.
        places: module -> its names, separated by spaces; NAME=PUBLIC where the package calls a
            name otherwise. Names of the package itself are its subpackages.

    Returns:
        (`__all__`, `__getattr__`, `__dir__`) for the package's `__init__.py`.
    """
    found_in = {}
    for module, names in places.items():
        for inner, _, public in (name.partition("=") for name in names.split()):
            found_in[public or inner] = (module, inner)

    def look_up(name: str) -> Any:
        if name not in found_in:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, inner = found_in[name]
        if module == package:
            return importlib.import_module(f"{package}.{name}")
        found = getattr(importlib.import_module(module), inner)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *found_in})

    return sorted(found_in), look_up, names
