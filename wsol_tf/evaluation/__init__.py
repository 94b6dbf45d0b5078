"""From score maps to figures; nothing here draws or prints."""
