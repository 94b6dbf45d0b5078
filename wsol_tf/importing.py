"""Imports Keras and TensorFlow without what programs do not use of them."""

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Sequence

OPTIONAL = ("matplotlib", "pandas", "scipy", "IPython")  # what import_keras does without


def import_keras(*, few_names: bool = False) -> None:
    """Imports Keras and with it TensorFlow, in half of the time that `import keras` takes.

    A program calls it before it imports what needs them, and not before it has read its flags.
    None of the million objects that they make is garbage: Python is kept from looking for some
    among them, now and when the program ends. Keras and TensorFlow would import all of OPTIONAL for
    functions that are not used here, and do without where that isn't to be had.

    Args:
        few_names: the program uses few of TensorFlow's functions, and starts no threads that use
            them: its namespaces (`tf.audio`, `tf.compat.v1`, ...) are each filled when a name of
            it is first used, which saves a quarter of the import.
    """
    if "keras" in sys.modules:
        return
    gc.disable()
    own = {name: sys.modules[name] for name in OPTIONAL if name in sys.modules}
    sys.modules.update(dict.fromkeys(OPTIONAL))  # type: ignore[arg-type]  # as what isn't there
    if few_names:
        sys.meta_path.insert(0, _Namespaces)
    try:
        importlib.import_module("keras")
    finally:
        for name in OPTIONAL:
            del sys.modules[name]
        sys.modules.update(own)
        gc.freeze()
        gc.enable()


class _Namespaces(importlib.abc.MetaPathFinder):
    """Finds TensorFlow's namespaces, which import names and do nothing else, for later use.

    Left out are `tf.nn`, which each network needs, and the parts of `tf.compat.v1`, which replaces
    them itself.
    """

    NAMES = re.compile(r"tensorflow\._api\.v2\.(?!nn$|compat\.\w+\.)")

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not cls.NAMES.match(name):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = importlib.util.LazyLoader(_Namespace(name, spec.origin))
        return spec


class _Namespace(importlib.machinery.SourceFileLoader):
    """Imports the names of a namespace of TensorFlow."""

    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        sys.modules[module.__name__] = module  # where `tf.compat.v1` put what warns of old names
        # Packages of TensorFlow that were imported by it, such as `tensorflow.lite`, take the place
        # of the namespaces that have their names.
        for name, namespace in vars(sys.modules["tensorflow._api.v2"]).items():
            if isinstance(namespace, types.ModuleType):
                setattr(sys.modules["tensorflow"], name, namespace)
