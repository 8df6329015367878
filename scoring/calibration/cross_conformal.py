"""CV+: conformal intervals that need no dates set aside.

Where the forecast was itself fitted on the past (a weighting of models, a bias correction), cases
that fitted it cannot calibrate it. CV+ fits it once without each fold, scores each case by the fit
that did not see it, and lets all fits speak on a new case (Barber, Candes, Ramdas and Tibshirani,
2021, doi:10.1214/20-AOS1965). Coverage is then at least 1 - 2 alpha, and 1 - alpha in practice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.calibration.conformal import check_fitted
from scoring.calibration.conformity import SYMMETRIC, Conformity, check_reachable


@dataclass(frozen=True)
class CrossConformal:
    """Scores of all cases, each by the fit without its fold.

    Attributes
    ----------
    error : xarray.DataArray
        Truth minus quantile, (case, quantile).
    fold : numpy.ndarray
        Fold of each case, (case,), 0 to K - 1.
    conformity : Conformity
        `SYMMETRIC` or `ONE_SIDED`.
    """

    error: xr.DataArray
    fold: np.ndarray
    conformity: Conformity = SYMMETRIC

    @classmethod
    def fit(
        cls,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        fold: xr.DataArray,
        conformity: Conformity = SYMMETRIC,
    ) -> CrossConformal:
        """Score the cases.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Of each case by the fit that did not see its fold; any dimensions with `quantile`.
        truth : xarray.DataArray
            The same less `quantile`; NaN where it is missing. All its cases are pooled.
        fold : xarray.DataArray
            Number of the fold, by some dimensions of `truth` (`scoring.dates.folds`).
        conformity : Conformity
            `SYMMETRIC` (default) or `ONE_SIDED`.

        Raises
        ------
        InputError
            If a level needs more cases than there are.
        """
        with xr.set_options(arithmetic_join="exact"):
            error = (truth - quantiles).transpose(*truth.dims, "quantile")
        flat = error.values.reshape(-1, error.sizes["quantile"])
        folds = fold.broadcast_like(truth).transpose(*truth.dims).values.ravel()
        known = ~np.isnan(flat).any(axis=1)
        kept = xr.DataArray(flat[known], {"quantile": error["quantile"]}, ("case", "quantile"))
        calibration = cls(kept, folds[known].astype(int), conformity)
        for margin in calibration._margins():
            check_reachable(margin.alpha, int(known.sum()))
        return calibration

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """Quantiles of new cases; the dimensions of `quantiles` less `fold`, sorted.

        With n cases, the lower end of an interval is the floor(alpha (n+1))-th smallest of the
        q_lo of the fold of each case minus its score, the upper end the ceil((1-alpha)(n+1))-th
        smallest of q_hi plus the score. Levels that do not move are the mean over folds.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Any dimensions with `quantile` and `fold`: the new cases by each fit.

        Raises
        ------
        InputError
            If the levels or the number of folds are not those fitted.
        """
        check_fitted(self.error, quantiles)
        if quantiles.sizes["fold"] <= self.fold.max():
            raise InputError(
                f"cross-conformal calibration was fitted on {self.fold.max() + 1} folds, found "
                f"{quantiles.sizes['fold']}"
            )
        rest = [dim for dim in quantiles.dims if dim not in ("fold", "quantile")]
        ordered = quantiles.transpose("fold", *rest, "quantile")
        result = ordered.mean("fold").astype(float)
        values = ordered.values
        count = self.fold.size
        for margin in self._margins():
            place = min(int(np.ceil(round((1 - margin.alpha) * (count + 1), 6))), count) - 1
            for level, direction in margin.moved:
                ends = values[self.fold, ..., level].reshape(count, -1)
                ends = direction * ends + margin.scores[:, None]
                found = direction * np.partition(ends, place, axis=0)[place]
                result.values[..., level] = found.reshape(ordered.shape[1:-1])
        result.values.sort(axis=-1)
        dims = [dim for dim in quantiles.dims if dim != "fold"]
        return result.transpose(*dims).assign_attrs(quantiles.attrs)

    def _margins(self):
        values = self.error.values
        levels = self.error["quantile"].values
        return self.conformity.margins(lambda level: values[:, level], levels)
