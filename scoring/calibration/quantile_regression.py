"""Linear quantile regression of the truth on a quantile forecast, drawn towards that forecast.

The calibrated quantile at level p is

    q'_p = q_p + a + b (m - o) + c (q_p - m),

with the forecast's quantile q_p and middle level m, and o the mean of m over the cases fitted. Each
of a, b and c is a sum of coefficients: of all cases, of each site, of each part of the day and so
on. They make the mean pinball loss of past cases least (Koenker and Bassett, 1978,
doi:10.2307/1913643), smoothed (Zheng, 2011, doi:10.1007/s13042-011-0031-2), with a penalty on their
squares (Hoerl and Kennard, 1970, doi:10.1080/00401706.1970.10488634), so that groups with few cases
lean on what all have in common, and that leans on the raw forecast.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.special import expit

from data.errors import InputError
from scoring.calibration.conformal import check_fitted
from scoring.calibration.monotone import SORT
from scoring.calibration.quantile_forecast import check_quantile_forecast
from scoring.labels import load, save

_STEPS = 100
_HALVINGS = 40
_TOLERANCE = 1e-10

Groupings = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Terms:
    """What has coefficients of its own: each entry names coordinates whose labels are crossed.

    ``((), ("site",), ("site", "season"))`` is one coefficient for all cases, one more for each
    site, and one more for each site and season.

    Parameters
    ----------
    offset : tuple of tuple of str
        Of a, which moves a level.
    centre : tuple of tuple of str
        Of b, which answers to the forecast's middle level.
    spread : tuple of tuple of str
        Of c, which answers to the distance of a level from it.
    """

    offset: Groupings = ((),)
    centre: Groupings = ((),)
    spread: Groupings = ((),)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """All that are named, each once."""
        groupings = (*self.offset, *self.centre, *self.spread)
        return tuple(dict.fromkeys(name for grouping in groupings for name in grouping))


@dataclass(frozen=True)
class QuantileRegression:
    """Fitted coefficients.

    Attributes
    ----------
    coefficients : xarray.DataArray
        (term, quantile), without unit: of values divided by `unit`. Terms are called
        ``offset``, ``centre site=03002``, ``offset site=03002 season=DJF``, ...
    terms : Terms
        What they are coefficients of.
    labels : dict of str to numpy.ndarray
        The labels of each coordinate that was fitted.
    origin, unit : float
        o, and the mean absolute deviation of the truth, in the unit of the forecast.
    """

    coefficients: xr.DataArray
    terms: Terms
    labels: dict[str, np.ndarray]
    origin: float
    unit: float

    @classmethod
    def fit(
        cls,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        terms: Terms = Terms(),
        ridge: float = 0.03,
        weights: xr.DataArray | None = None,
        smoothing: float = 0.1,
    ) -> QuantileRegression:
        """Fit on past forecasts and their truth, all cases together.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Any dimensions with `quantile`, levels increasing.
        truth : xarray.DataArray
            The dimensions of `quantiles` less `quantile`; NaN where it is missing.
        terms : Terms
            One coefficient of each kind for all cases by default.
        ridge : float
            Penalty on each squared coefficient, beside a loss in units of `unit`; positive. The
            larger, the nearer the raw forecast.
        weights : xarray.DataArray, optional
            Of cases, by any of their dimensions: area, or recency (`scoring.dates`); equal by
            default.
        smoothing : float
            The loss is smooth within about so many units around 0; positive.

        Raises
        ------
        InputError
            If dimensions or coordinates do not fit, there is no case, or a penalty is not positive.
        """
        check_quantile_forecast(quantiles)
        if not ridge > 0 or not smoothing > 0:
            raise InputError(f"ridge and smoothing must be positive, found {ridge}, {smoothing}")
        cases = _Cases.of(quantiles, terms)
        observed, weight = _columns(quantiles, truth, weights)
        known = np.isfinite(observed) & np.isfinite(cases.quantiles).all(axis=1) & (weight > 0)
        if not known.any():
            raise InputError("quantile regression found no case that has forecast and truth")
        labels = {name: np.unique(values) for name, values in cases.coordinates.items()}
        cases, observed = cases.take(known), observed[known]
        weight = weight[known] / weight[known].sum()
        deviation = float(weight @ np.abs(observed - weight @ observed))
        origin, unit = float(weight @ cases.middle), deviation if deviation > 0 else 1.0
        indicators = cases.indicators(terms, labels)
        found = np.empty((sum(part.shape[1] for part in indicators), cases.quantiles.shape[1]))
        for index, level in enumerate(quantiles["quantile"].values):
            design = cases.design(indicators, index, origin, unit)
            error = (observed - cases.quantiles[:, index]) / unit
            found[:, index] = _fitted(design, error, weight, (level, ridge, smoothing))
        names = _names(terms, labels)
        coordinates = {"term": names, "quantile": quantiles["quantile"].values}
        coefficients = xr.DataArray(found, coordinates, ("term", "quantile"))
        return cls(coefficients, terms, labels, origin, unit)

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """Calibrated quantiles, sorted; same dimensions, in the order of `quantiles`.

        Raises
        ------
        InputError
            If a level, coordinate or label is not among those fitted.
        """
        check_fitted(self.coefficients, quantiles)
        cases = _Cases.of(quantiles, self.terms)
        indicators = cases.indicators(self.terms, self.labels)
        result = np.empty(cases.quantiles.shape)
        for index in range(result.shape[1]):
            design = cases.design(indicators, index, self.origin, self.unit)
            change = design @ self.coefficients.values[:, index]
            result[:, index] = cases.quantiles[:, index] + self.unit * change
        last = quantiles.transpose(..., "quantile")
        calibrated = last.copy(data=SORT.of_array(result).reshape(last.shape))
        return calibrated.transpose(*quantiles.dims).assign_attrs(quantiles.attrs)

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        labels = {name: values.tolist() for name, values in self.labels.items()}
        attributes = {"origin": self.origin, "unit": self.unit}
        attributes |= {"terms": json.dumps(asdict(self.terms)), "labels": json.dumps(labels)}
        save(self.coefficients.rename("coefficients").to_dataset().assign_attrs(attributes), path)

    @classmethod
    def load(cls, path: Path) -> QuantileRegression:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none.
        """
        found = load(path, "quantile regression is", ["coefficients"])
        kinds = json.loads(found.attrs["terms"])
        terms = Terms(**{kind: tuple(map(tuple, parts)) for kind, parts in kinds.items()})
        labels = json.loads(found.attrs["labels"])
        return cls(
            found["coefficients"].rename(None),
            terms,
            {name: np.array(values) for name, values in labels.items()},
            float(found.attrs["origin"]),
            float(found.attrs["unit"]),
        )


@dataclass(frozen=True)
class _Cases:
    """Cases one behind the other.

    Attributes
    ----------
    quantiles : numpy.ndarray
        (case, quantile)
    coordinates : dict of str to numpy.ndarray
        Labels of each case, (case,).
    """

    quantiles: np.ndarray
    coordinates: dict[str, np.ndarray]

    @classmethod
    def of(cls, quantiles: xr.DataArray, terms: Terms) -> _Cases:
        last = quantiles.transpose(..., "quantile")
        cells = last.isel(quantile=0, drop=True)
        labels = {}
        for name in terms.coordinates:
            if name not in cells.coords:
                raise InputError(
                    f"regression by {name!r} needs it among the coordinates of the forecast: "
                    f"{sorted(str(found) for found in cells.coords)}"
                )
            label = cells.coords[name].reset_coords(drop=True).broadcast_like(cells)
            labels[name] = label.transpose(*cells.dims).values.ravel()
        return cls(last.values.reshape(-1, last.sizes["quantile"]).astype(float), labels)

    @property
    def middle(self) -> np.ndarray:
        """Middle level, (case,)."""
        return self.quantiles[:, self.quantiles.shape[1] // 2]

    def take(self, which: np.ndarray) -> _Cases:
        """Some of the cases."""
        chosen = {name: values[which] for name, values in self.coordinates.items()}
        return _Cases(self.quantiles[which], chosen)

    def indicators(self, terms: Terms, labels: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """1 where a case is of a group, (case, group), for offset, centre and spread."""
        place = {}
        for name, values in self.coordinates.items():
            if unknown := set(values.tolist()) - set(labels[name].tolist()):
                raise InputError(
                    f"regression was fitted for {name} in {labels[name].tolist()}, found "
                    f"{sorted(unknown)}"
                )
            place[name] = np.searchsorted(labels[name], values)
        parts = []
        for groupings in (terms.offset, terms.centre, terms.spread):
            columns = [np.zeros((len(self.quantiles), 0))]
            for grouping in groupings:
                group, number = np.zeros(len(self.quantiles), int), 1
                for name in grouping:
                    group = group * labels[name].size + place[name]
                    number *= labels[name].size
                columns.append((group[:, None] == np.arange(number)).astype(float))
            parts.append(np.concatenate(columns, axis=1))
        return parts

    def design(
        self, indicators: list[np.ndarray], level: int, origin: float, unit: float
    ) -> np.ndarray:
        """What the coefficients of a level, by its position, multiply: (case, term)."""
        offset, centre, spread = indicators
        departure = (self.middle - origin) / unit
        distance = (self.quantiles[:, level] - self.middle) / unit
        parts = offset, departure[:, None] * centre, distance[:, None] * spread
        return np.concatenate(parts, axis=1)


def _columns(
    quantiles: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Truth and weights, (case,), in the order of the forecasts."""
    cells = quantiles.transpose(..., "quantile").isel(quantile=0, drop=True)
    if set(truth.dims) != set(cells.dims):
        raise InputError(f"truth needs the dimensions {cells.dims}, found {truth.dims}")
    try:
        xr.align(cells, truth, join="exact", copy=False)
    except ValueError as error:
        raise InputError(f"forecasts and truth have different coordinates: {error}") from error
    weight = xr.ones_like(truth, float) if weights is None else weights.broadcast_like(truth)
    if not (weight.values >= 0).all():
        raise InputError("weights of cases must be known and not negative, for every case")
    observed, weight = (
        array.transpose(*cells.dims).values.ravel().astype(float) for array in (truth, weight)
    )
    return observed, weight


def _fitted(
    design: np.ndarray,
    error: np.ndarray,
    weight: np.ndarray,
    settings: tuple[float, float, float],
) -> np.ndarray:
    """Coefficients, (term,), at which sum w [p r + s log(1 + exp(-r / s))] + ridge |b|^2 with
    r = error - design b is least, by damped Newton steps; settings are p, ridge and s."""
    level, ridge, smoothing = settings

    def objective(at: np.ndarray) -> float:
        rest = error - design @ at
        loss = level * rest + smoothing * np.logaddexp(0.0, -rest / smoothing)
        return float(weight @ loss + ridge * at @ at)

    at = np.zeros(design.shape[1])
    lowest = objective(at)
    for _ in range(_STEPS):
        below = expit(-(error - design @ at) / smoothing)
        slope = design.T @ (weight * (below - level)) + 2 * ridge * at
        bend = weight * below * (1 - below) / smoothing
        curvature = design.T @ (bend[:, None] * design) + 2 * ridge * np.eye(at.size)
        step = np.linalg.solve(curvature, slope)
        fall = float(slope @ step)
        if fall <= _TOLERANCE * lowest:
            break
        length = 1.0
        for _ in range(_HALVINGS):
            if objective(at - length * step) <= lowest - 1e-4 * length * fall:
                break
            length /= 2
        at = at - length * step
        lowest = objective(at)
    return at


def _names(terms: Terms, labels: Mapping[str, np.ndarray]) -> list[str]:
    """Of the columns of a design, in their order."""
    names = []
    for kind, groupings in asdict(terms).items():
        for grouping in groupings:
            for values in product(*(labels[name].tolist() for name in grouping)):
                of = [f"{name}={value}" for name, value in zip(grouping, values, strict=True)]
                names.append(" ".join([kind, *of]))
    return names
