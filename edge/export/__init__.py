"""From a trained model to .tflite files that were checked against it."""
