"""Forecasters: neural, physical and reference; rollout, training and checkpoints."""
