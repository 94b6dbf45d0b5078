"""The package for TFLite export."""
