"""From a trained model to .tflite files that are checked against it."""

from wsol_tf import keras_settings

keras_settings.check()
