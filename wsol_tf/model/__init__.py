"""The network, what it learns from, and how its maps become masks and boxes."""
