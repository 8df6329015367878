"""Calibration of stores: fitted on some init dates, applied to others, updated by one more."""
