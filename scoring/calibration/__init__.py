"""From several imperfect forecasts to one that covers what it promises: aggregation of quantiles,
monotonicity, conformal calibration, and calibration of members."""
