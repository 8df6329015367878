"""Quantile forecasts side by side: score, coverage, and whether differences are chance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from data.errors import InputError
from scoring.calibration.pools import UNTRAINED, BestModel
from scoring.quantiles import CENTRAL_INTERVALS, interval, quantile_score
from scoring.sample import of_mean
from scoring.significance import EqualWeightedCosine, Test

_TEST = EqualWeightedCosine()


def baselines(quantiles: xr.DataArray, best: BestModel) -> dict[str, xr.DataArray]:
    """What an aggregation is always printed beside: combinations without training, the best
    single model of the past, and every model.

    Parameters
    ----------
    quantiles : xarray.DataArray
        Any dimensions with `model` and `quantile`.
    best : BestModel
        Ranked on the past.
    """
    combined = {one.name: one.of(quantiles) for one in (*UNTRAINED, best)}
    models = {str(name): quantiles.sel(model=name, drop=True) for name in quantiles["model"].values}
    return combined | models


def compare(
    forecasts: Mapping[str, xr.DataArray],
    truth: xr.DataArray,
    reference: str,
    test: Test = _TEST,
) -> pd.DataFrame:
    """Mean score and coverage of quantile forecasts, and a paired test against one of them.

    All are judged on the cases that have truth and the reference. A forecast that misses some
    of them is judged on the others, and its `relative` score and test are on those alone.

    Parameters
    ----------
    forecasts : mapping of str to xarray.DataArray
        `init_time`, other dimensions, and `quantile`.
    truth : xarray.DataArray
        The same less `quantile`.
    reference : str
        Name of the forecast that others are tested against.
    test : Test
        Paired over init times: of the means over the other dimensions.

    Returns
    -------
    pandas.DataFrame
        One row per forecast, the lowest relative score first: `cases`, and the init times, `dates`,
        that they are of; `score`, the mean
        `quantile_score` (the weighted interval score if levels come in pairs); `relative`, the
        ratio to the reference's on the same cases; `p_value`; and `coverage 0.5` and so on for
        the intervals that the levels have.

    Raises
    ------
    InputError
        If there is no such reference, or it has no case with truth.
    """
    if reference not in forecasts:
        raise InputError(f"reference {reference!r} is not among {list(forecasts)}")
    usual = quantile_score(forecasts[reference], truth)
    if not usual.notnull().any():
        raise InputError(f"{reference} has no case with truth")
    rows = {name: _row(forecast, truth, usual, test) for name, forecast in forecasts.items()}
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"cases": int, "dates": int})
    return table.rename_axis("forecast").sort_values("relative")


def _row(
    forecast: xr.DataArray, truth: xr.DataArray, usual: xr.DataArray, test: Test
) -> dict[str, float]:
    score = quantile_score(forecast, truth)
    common = score.notnull() & usual.notnull()
    score, usual = score.where(common), usual.where(common)
    if not common.any():
        return {"cases": 0, "dates": 0, "score": np.nan, "relative": np.nan, "p_value": np.nan}
    row = {
        "cases": int(common.sum()),
        "dates": int(common.any([dim for dim in common.dims if dim != "init_time"]).sum()),
        "score": float(score.mean()),
        "relative": float(score.mean() / usual.mean()),
        "p_value": _p_value(score - usual, test),
    }
    for level in CENTRAL_INTERVALS:
        try:
            low, high = interval(forecast, level)
        except InputError:
            continue
        row[f"coverage {level:g}"] = float(((low <= truth) & (truth <= high)).where(common).mean())
    return row


def _p_value(difference: xr.DataArray, test: Test) -> float:
    """Of the mean over cases, paired by init time; NaN with too few init times."""
    others = [dim for dim in difference.dims if dim != "init_time"]
    # Init times weigh as many cases as they have, as they do in the score.
    share = difference.notnull().sum(others) / difference.notnull().sum(others).mean()
    try:
        return float(
            test.of(of_mean((difference.mean(others) * share).where(share > 0)))["p_value"]
        )
    except InputError:
        return np.nan
