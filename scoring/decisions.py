"""Discrimination and value of probability forecasts: ROC and relative economic value.

Whoever acts when the forecast probability reaches some threshold has a hit rate and a false alarm
rate. All functions take a joint distribution of probability and event, shares or counts, as the
mean of `JointDistribution` or `joint_distribution` give it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.events import JointDistribution
from scoring.score import Score


def roc_curve(joint: xr.DataArray) -> xr.Dataset:
    """Hit rate and false alarm rate when acting at each probability (Mason, 1982, in
    Australian Meteorological Magazine 30).

    Parameters
    ----------
    joint : xarray.DataArray
        (..., event, probability), shares or counts.

    Returns
    -------
    xarray.Dataset
        `hit_rate` and `false_alarm_rate`, (..., action): `action` is the lowest forecast
        probability at which action is taken, at last infinity for never. NaN without an event,
        or without a case of none.
    """
    return xr.Dataset(
        {
            "hit_rate": _rate_of_action(joint.sel(event=1, drop=True)),
            "false_alarm_rate": _rate_of_action(joint.sel(event=0, drop=True)),
        }
    )


def roc_area(joint: xr.DataArray) -> xr.DataArray:
    """Area under the ROC curve, (...): the probability that a case with the event had the higher
    forecast than one without, ties counted one half; 0.5 without any skill.

    Parameters
    ----------
    joint : xarray.DataArray
        (..., event, probability), shares or counts.
    """
    curve = roc_curve(joint)
    hit, alarm = curve["hit_rate"], curve["false_alarm_rate"]
    # Both fall from 1 to 0 along `action`.
    before, after = {"action": slice(None, -1)}, {"action": slice(1, None)}
    width = alarm.isel(before).drop_vars("action") - alarm.isel(after).drop_vars("action")
    height = hit.isel(before).drop_vars("action") + hit.isel(after).drop_vars("action")
    return (width * height / 2).sum("action", skipna=False)


def relative_economic_value(joint: xr.DataArray, cost_loss_ratios: Sequence[float]) -> xr.DataArray:
    """Saving as a share of what a perfect forecast saves, against the better of always and never
    acting (Richardson, 2000, doi:10.1002/qj.49712656313).

    With cost-loss ratio a, base rate s, hit rate H and false alarm rate F,

    V = [min(a, s) - F a (1 - s) + H s (1 - a) - s] / [min(a, s) - s a].

    Parameters
    ----------
    joint : xarray.DataArray
        (..., event, probability), shares or counts.
    cost_loss_ratios : sequence of float
        Cost of action over the loss that it prevents, within (0, 1).

    Returns
    -------
    xarray.DataArray
        (..., action, cost_loss_ratio); its maximum over `action` is the value to a user who acts
        at the best probability, which is never negative. NaN where the event always or never
        happens.

    Raises
    ------
    InputError
        If a ratio lies outside (0, 1).
    """
    ratios = np.asarray(cost_loss_ratios, float)
    if ratios.size == 0 or not ((ratios > 0) & (ratios < 1)).all():
        raise InputError(f"cost-loss ratios must lie within (0, 1), found {cost_loss_ratios}")
    cost = xr.DataArray(ratios, {"cost_loss_ratio": ratios}, ("cost_loss_ratio",))
    curve = roc_curve(joint)
    events = joint.sel(event=1, drop=True).sum("probability", skipna=False)
    base = events / joint.sum(("event", "probability"), skipna=False)
    climate = np.minimum(cost, base)
    alarms = curve["false_alarm_rate"] * cost * (1 - base)
    hits = curve["hit_rate"] * base * (1 - cost)
    saving = climate - alarms + hits - base
    value = saving / (climate - base * cost).where((base > 0) & (base < 1))
    return value.transpose(..., "action", "cost_loss_ratio")


def roc_area_score(statistic: JointDistribution) -> Score:
    """Area under the ROC curve of k/M."""
    note = "of k/M, trapezoidal: ties count one half; 0.5 without skill"
    return Score("roc_area", note, (statistic,), roc_area)


def relative_economic_value_score(
    statistic: JointDistribution, cost_loss_ratios: tuple[float, ...]
) -> Score:
    """Relative economic value to users who act at the best probability."""
    return Score(
        "relative_economic_value",
        "of k/M, acting at the best probability for each cost-loss ratio",
        (statistic,),
        lambda joint: relative_economic_value(joint, cost_loss_ratios).max("action", skipna=False),
    )


def _rate_of_action(cases: xr.DataArray) -> xr.DataArray:
    """Share of the cases with at least each forecast probability, (..., action)."""
    cases = cases.transpose(..., "probability")
    reached = np.cumsum(cases.values[..., ::-1], axis=-1)[..., ::-1]
    never = np.zeros((*reached.shape[:-1], 1))
    total = reached[..., :1]
    rate = np.full((*reached.shape[:-1], reached.shape[-1] + 1), np.nan)
    np.divide(np.concatenate([reached, never], axis=-1), total, out=rate, where=total > 0)
    action = np.append(cases["probability"].values, np.inf)
    dims = [*cases.dims[:-1], "action"]
    known = {dim: cases.coords[dim] for dim in cases.dims[:-1] if dim in cases.coords}
    return xr.DataArray(rate, {**known, "action": action}, dims)
