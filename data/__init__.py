"""Grids, channels, states, the sphere, and where analyses and truth come from."""
