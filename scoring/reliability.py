"""Reliability of probability forecasts: the CORP diagram and decompositions of the Brier score.

CORP (Dimitriadis, Gneiting and Jordan, 2021, doi:10.1073/pnas.2016191118) recalibrates the
forecast probabilities by isotonic regression of the events on them, which needs no bins. All
functions take a joint distribution of probability and event, shares or counts, as the mean of
`JointDistribution` or `joint_distribution` give it.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from data.errors import InputError
from data.key import Key
from scoring.calibration.isotonic import isotonic_regression
from scoring.events import JointDistribution
from scoring.score import Score


def reliability_diagram(joint: xr.DataArray) -> xr.Dataset:
    """What happened when each probability was forecast.

    Parameters
    ----------
    joint : xarray.DataArray
        (..., event, probability), shares or counts.

    Returns
    -------
    xarray.Dataset
        (..., probability): `frequency`, the share of cases with this forecast; `observed`, the
        share of them with the event; `calibrated`, the isotonic fit to it (the CORP reliability
        curve). The last two are NaN where a probability was never forecast.
    """
    frequency, events = _shares(joint)
    observed = events / frequency.where(frequency > 0)
    fit = xr.apply_ufunc(
        isotonic_regression,
        observed,
        frequency,
        input_core_dims=[["probability"], ["probability"]],
        output_core_dims=[["probability"]],
    )
    calibrated = fit.where(frequency > 0).transpose(*frequency.dims)
    return xr.Dataset({"frequency": frequency, "observed": observed, "calibrated": calibrated})


def corp_decomposition(joint: xr.DataArray) -> xr.Dataset:
    """Brier score = miscalibration - discrimination + uncertainty, by CORP.

    With S, S_C and S_R the Brier scores of the forecast, of the recalibrated forecast and of the
    base rate: MCB = S - S_C, DSC = S_R - S_C, UNC = S_R. MCB and DSC are never negative.

    Parameters
    ----------
    joint : xarray.DataArray
        (..., event, probability), shares or counts.

    Returns
    -------
    xarray.Dataset
        (...): `brier`, `miscalibration`, `discrimination`, `uncertainty`.
    """
    return _decomposition(joint, "calibrated", ("miscalibration", "discrimination"))


def murphy_decomposition(joint: xr.DataArray) -> xr.Dataset:
    """Brier score = reliability - resolution + uncertainty, by distinct probability (Murphy,
    1973, doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).

    With few cases for each probability both terms are too large: prefer `corp_decomposition`.

    Parameters
    ----------
    joint : xarray.DataArray
        (..., event, probability), shares or counts.

    Returns
    -------
    xarray.Dataset
        (...): `brier`, `reliability`, `resolution`, `uncertainty`.
    """
    return _decomposition(joint, "observed", ("reliability", "resolution"))


def consistency_band(
    joint: xr.DataArray, cases: int, key: Key, level: float = 0.9, resamples: int = 1000
) -> xr.Dataset:
    """Where the CORP curve of a calibrated forecast would lie, by consistency resampling.

    Forecasts are drawn with replacement from those issued, and events with the forecast
    probability (Broecker and Smith, 2007, doi:10.1175/WAF993.1).

    Parameters
    ----------
    joint : xarray.DataArray
        (..., event, probability), shares or counts.
    cases : int
        Number of independent cases behind it: dates rather than dates times cells, as
        neighbouring cells share their weather.
    key : Key
        Where the draws come from; each series has its own stream.
    level : float
        Probability that the calibrated curve lies within the band, at each forecast probability.
    resamples : int
        Number of resamples.

    Returns
    -------
    xarray.Dataset
        `lower` and `upper`, (..., probability), NaN where a probability was never forecast;
        `miscalibration`, (...), the mean MCB under calibration, the null value of the one found.

    Raises
    ------
    InputError
        If there is no case, no resample, or the level lies outside (0, 1).
    """
    if cases < 1 or resamples < 1 or not 0 < level < 1:
        raise InputError(
            f"a band needs cases, resamples and a level within (0, 1), found {cases}, "
            f"{resamples} and {level:g}"
        )
    frequency, _ = _shares(joint)
    frequency = frequency.transpose(..., "probability")
    probability = frequency["probability"].values
    series = frequency.values.reshape(-1, probability.size)
    curves = np.full((3, *series.shape), np.nan)
    for number, shares in enumerate(series):
        asked = np.flatnonzero(shares > 0)
        if asked.size:
            generator = (key / "consistency" / number).generator()
            found = _resampled(probability[asked], shares[asked], cases, generator, resamples)
            curves[:2, number, asked] = np.quantile(
                found[0], [(1 - level) / 2, (1 + level) / 2], axis=0
            )
            curves[2, number] = found[1].mean()
    lower, upper, mean = (frequency.copy(data=curve.reshape(frequency.shape)) for curve in curves)
    return xr.Dataset(
        {"lower": lower, "upper": upper, "miscalibration": mean.isel(probability=0, drop=True)}
    )


def miscalibration(statistic: JointDistribution) -> Score:
    """Mean excess of the Brier score over that of the recalibrated forecast."""
    return _part("miscalibration", statistic)


def discrimination(statistic: JointDistribution) -> Score:
    """How far the recalibrated forecast is better than the base rate."""
    return _part("discrimination", statistic)


def uncertainty(statistic: JointDistribution) -> Score:
    """Brier score of the base rate of the sample."""
    return _part("uncertainty", statistic)


def _part(name: str, statistic: JointDistribution) -> Score:
    note = "of the Brier score of k/M, by isotonic regression (CORP)"
    return Score(name, note, (statistic,), lambda joint: corp_decomposition(joint)[name])


def _shares(joint: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Shares of all cases, and of cases with the event, by probability."""
    total = joint.sum(("event", "probability"), skipna=False)
    shares = joint / total.where(total > 0)
    return shares.sum("event", skipna=False), shares.sel(event=1, drop=True)


def _decomposition(joint: xr.DataArray, curve: str, names: tuple[str, str]) -> xr.Dataset:
    """Parts of the Brier score against a reliability curve."""
    diagram = reliability_diagram(joint)
    frequency, probability = diagram["frequency"], diagram["probability"]
    events = (frequency * diagram["observed"]).where(frequency > 0, 0.0)

    def brier(forecast: xr.DataArray) -> xr.DataArray:
        terms = frequency * forecast**2 + events * (1 - 2 * forecast)
        return terms.where(frequency != 0, 0.0).sum("probability", skipna=False)

    base_rate = events.where(frequency.notnull()).sum("probability", skipna=False)
    score, recalibrated = brier(probability), brier(diagram[curve])
    reference = base_rate * (1 - base_rate)
    return xr.Dataset(
        {
            "brier": score,
            names[0]: score - recalibrated,
            names[1]: reference - recalibrated,
            "uncertainty": reference,
        }
    )


def _resampled(
    probability: np.ndarray,
    shares: np.ndarray,
    cases: int,
    generator: np.random.Generator,
    resamples: int,
) -> tuple[np.ndarray, np.ndarray]:
    """CORP curves of calibrated forecasts, (resample, probability), and their MCB, (resample,)."""
    counts = generator.multinomial(cases, shares / shares.sum(), resamples)
    events = generator.binomial(counts, probability)
    rate = events / np.maximum(counts, 1)
    fit = isotonic_regression(rate, counts)
    gain = ((probability - rate) ** 2 - (fit - rate) ** 2) * counts
    # Between the probabilities that were drawn the curve is linear, as it is drawn.
    for curve, count in zip(fit, counts, strict=True):
        drawn = count > 0
        curve[:] = np.interp(probability, probability[drawn], curve[drawn])
    return fit, gain.sum(axis=1) / cases
