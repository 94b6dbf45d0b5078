"""From a trained model to .tflite files that are checked against it."""
