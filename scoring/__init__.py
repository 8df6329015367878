"""Scores, quantile aggregation, conformal calibration and significance; knows no models."""
