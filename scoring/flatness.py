"""How flat a rank histogram is, and how flat chance leaves that of a calibrated ensemble."""

from __future__ import annotations

from math import exp, lgamma, log

import numpy as np
import xarray as xr
from scipy.special import gammaincc

from data.errors import InputError


def reliability_index(histogram: xr.DataArray) -> xr.DataArray:
    """Sum over bins of |share - 1 / bins| (Delle Monache et al., 2006,
    doi:10.1029/2005JD006917); 0 when flat, at most 2.

    Parameters
    ----------
    histogram : xarray.DataArray
        (..., bin), shares that sum to 1.
    """
    return np.abs(histogram - 1 / histogram.sizes["bin"]).sum("bin", skipna=False)


def expected_reliability_index(bins: int, cases: int) -> float:
    """What the reliability index is on average when the ensemble is calibrated: chance alone.

    The count of each bin is binomial with p = 1 / bins, so that with v = floor(n p) + 1 the
    index is, exactly, 2 v (1 - p) C(n, v) p^v (1 - p)^(n - v) / (n p) on average (de Moivre's
    mean deviation; Diaconis and Zabell, 1991, doi:10.1214/ss/1177011699); about
    sqrt(2 (bins - 1) / (pi n)).

    Parameters
    ----------
    bins : int
        Number of bins: M + 1, or a divisor of it, so that each case falls into one bin.
    cases : int
        n, the number of independent cases: dates rather than dates times cells, as neighbouring
        cells share their weather.

    Raises
    ------
    InputError
        If there are no cases or no bins.
    """
    if bins < 1 or cases < 1:
        raise InputError(f"a rank histogram needs bins and cases, found {bins} and {cases}")
    if bins == 1:
        return 0.0
    share = 1 / bins
    above = cases // bins + 1
    ways = lgamma(cases + 1) - lgamma(above + 1) - lgamma(cases - above + 1)
    chance = exp(ways + above * log(share) + (cases - above) * log(1 - share))
    return 2 * above * (1 - share) * chance / (cases * share)


def histogram_flatness(histogram: xr.DataArray, cases: int) -> xr.Dataset:
    """Departure of a rank histogram from flat, beside its null values.

    Parameters
    ----------
    histogram : xarray.DataArray
        (..., bin), shares that sum to 1.
    cases : int
        Number of independent cases behind it: dates rather than dates times cells.

    Returns
    -------
    xarray.Dataset
        (...): `reliability_index` and, a number, `expected_reliability_index`;
        `chi_square`, n J sum (share - 1/J)^2 for n cases and J bins, and its `p_value` with J - 1
        degrees of freedom;
        `delta` = chi_square / (J - 1), 1 on average when calibrated (Candille and Talagrand, 2005,
        doi:10.1256/qj.04.71).

    Raises
    ------
    InputError
        If there are no cases, or fewer than two bins.
    """
    bins = histogram.sizes["bin"]
    if bins < 2:
        raise InputError(f"whether {bins} bin is flat cannot be asked")
    square = ((histogram - 1 / bins) ** 2).sum("bin", skipna=False) * cases * bins
    chance = gammaincc((bins - 1) / 2, square.values / 2)
    return xr.Dataset(
        {
            "reliability_index": reliability_index(histogram),
            "expected_reliability_index": expected_reliability_index(bins, cases),
            "chi_square": square,
            "p_value": square.copy(data=chance),
            "delta": square / (bins - 1),
        }
    )
