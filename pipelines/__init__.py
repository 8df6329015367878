"""Experiments, the ensemble engine, the store, reports and the command line."""
