"""Lets the project's model and evaluation run under Keras's JAX backend, without TensorFlow.

All that is bent for it stands here. Import this before anything of Keras or of the project, and
call `prepare_keras` before a network is built.
"""

import importlib.machinery
import importlib.util
import os
import sys
import types

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")  # nothing else needs the device

from wsol_tf import keras_settings

# The project's programs are for the TensorFlow backend and refuse others: not here.
keras_settings.NEEDED["backend"] = "jax"


class _Absent(types.ModuleType):
    """Stands in for TensorFlow where modules import it for functions that are not called here."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(name)


HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
if not HAS_TENSORFLOW:
    absent = _Absent("tensorflow")
    absent.__path__ = []
    absent.__spec__ = importlib.machinery.ModuleSpec("tensorflow", None)
    absent.executing_eagerly = lambda: True  # Keras asks whether one of its graphs is being made
    sys.modules["tensorflow"] = absent


def prepare_keras():
    """Tells Keras that there is no TensorFlow, and that there is one device.

    Keras refuses batch normalization that several devices share on other backends than TensorFlow;
    on one device it is the ordinary one.
    """
    import keras
    from keras.src.utils import module_utils

    if not HAS_TENSORFLOW:
        module_utils.tensorflow._available = False
    init = keras.layers.BatchNormalization.__init__
    if init.__name__ != "init_unshared":

        def init_unshared(self, *arguments, synchronized=False, **options):
            init(self, *arguments, **options)

        keras.layers.BatchNormalization.__init__ = init_unshared
