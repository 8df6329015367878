"""Angular power spectra of members, of their mean, of the truth and of the error.

Members must keep the power of the truth at every scale; the ensemble mean must lose the power that
has become unpredictable; and at every scale the variance of the members must be that of the error
of their mean. Spectra are means, so they merge over dates like every other statistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from data.sphere import Sphere
from scoring.identity import key_of
from scoring.score import Score
from scoring.thresholds import check_ensemble, matched

_BLOCK_VALUES = 2**21
_FIELD = ("latitude", "longitude")
PARTS = ("members", "mean", "truth", "error", "variance", "expected_error")


@dataclass(frozen=True)
class Spectrum:
    """What identifies a spectrum among sums.

    Parameters
    ----------
    of : {"members", "mean", "truth", "error", "variance", "expected_error"}
        The mean over members of their spectra; of the ensemble mean; of the truth; of the
        ensemble mean minus truth; of the members about their mean, M - 1 in the denominator; that
        times (M + 1) / M, which is what the error's is on average when the truth is exchangeable
        with the members (Fortin et al., 2014, doi:10.1175/JHM-D-14-0008.1, at each degree).
    truncation : int
        Highest degree.

    Raises
    ------
    InputError
        If there is no such spectrum.
    """

    of: str
    truncation: int

    def __post_init__(self) -> None:
        if self.of not in PARTS:
            raise InputError(f"there is no spectrum of {self.of!r}, expected one of {PARTS}")

    @property
    def key(self) -> str:
        """Name made of the class and of all its parameters, fit for a variable of a store."""
        return key_of(self)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The degrees."""
        return {"degree": np.arange(self.truncation + 1)}


def angular_spectra(
    forecast: xr.DataArray, truth: xr.DataArray, sphere: Sphere, member_dim: str = "number"
) -> xr.Dataset:
    """Angular power spectra of an ensemble and its truth.

    Power at degree l is ``(1 / 4 pi) sum_m (2 - delta_m0) |a_lm|^2``, whose sum over l is the
    area mean of the square. Transforms run in float32, each field less the truth's area mean,
    which goes back into degree 0.

    Parameters
    ----------
    forecast : xarray.DataArray
        `member_dim`, `latitude`, `longitude` on the sphere's grid, and any other dimensions.
        Fields without coordinates are taken to be in the order of the grid.
    truth : xarray.DataArray
        The same without `member_dim`.
    sphere : Sphere
        Grid and truncation.
    member_dim : str
        Name of the dimension of members.

    Returns
    -------
    xarray.Dataset
        Other dimensions, then `degree`, in the squared unit of the forecast: one variable for
        each `Spectrum`, named by its key. All are NaN where the truth has a missing value, all but
        the truth's where a member has, and variances where there is a single member.

    Raises
    ------
    InputError
        If dimensions, coordinates, units or the grid do not fit.
    """
    check_ensemble(forecast, truth, member_dim)
    absent = [dim for dim in _FIELD if dim not in forecast.dims]
    if absent:
        raise InputError(f"spectra need fields on the sphere, found no dimension {absent}")
    cells = forecast.isel({member_dim: 0}, drop=True)
    samples = [dim for dim in cells.dims if dim not in _FIELD]
    target = matched(truth, cells).transpose(*samples, *_FIELD)
    members = forecast.transpose(*samples, member_dim, *_FIELD)
    for name, fields in (("forecast", members), ("truth", target)):
        _check_grid(fields, sphere.grid, name)
    shape, degrees = target.shape[:-2], sphere.truncation + 1
    values = np.empty((*shape, len(PARTS), degrees))
    for place in np.ndindex(*shape):
        values[place] = _of_sample(members.values[place], target.values[place], sphere)
    known = {dim: cells.coords[dim] for dim in samples if dim in cells.coords}
    variables = {
        Spectrum(part, sphere.truncation).key: ((*samples, "degree"), values[..., number, :])
        for number, part in enumerate(PARTS)
    }
    return xr.Dataset(variables, {**known, "degree": np.arange(degrees)})


def power_ratio(of: str, truncation: int) -> Score:
    """Power of the members (or of the mean) over that of the truth, by degree; 1 is perfect for
    members, and the mean falls below it where scales have become unpredictable."""
    return Score(
        f"power_ratio_{of}",
        f"angular power of the {of} over that of the truth, averages before the ratio",
        (Spectrum(of, truncation), Spectrum("truth", truncation)),
        lambda power, truth: power / truth.where(truth > 0),
    )


def spectral_spread_skill(truncation: int) -> Score:
    """Spread-skill ratio at each degree; 1 when calibrated."""
    return Score(
        "spectral_spread_skill",
        "sqrt((M+1)/M mean variance / mean squared error of the mean), by degree",
        (Spectrum("expected_error", truncation), Spectrum("error", truncation)),
        lambda expected, error: np.sqrt(expected / error.where(error > 0)),
    )


def _check_grid(fields: xr.DataArray, grid: Grid, name: str) -> None:
    if fields.shape[-2:] != grid.shape:
        raise InputError(f"{name} of {fields.shape[-2:]} points does not fit the grid {grid}")
    known = {"latitude": grid.latitude, "longitude": grid.longitude}
    labels = [fields[dim].values if dim in fields.coords else known[dim] for dim in _FIELD]
    found = Grid.from_coordinates(*labels, where=name)
    if found != grid:
        raise InputError(f"{name} lies on the grid {found}, expected that of the sphere, {grid}")


def _of_sample(members: np.ndarray, truth: np.ndarray, sphere: Sphere) -> np.ndarray:
    """(part, degree) of members, (member, latitude, longitude), and truth."""
    level = float((truth.astype(np.float64) * sphere.grid.area_weights).sum())
    observed = _coefficients(truth[None], level, sphere)[0]
    number = len(members)
    size = max(1, _BLOCK_VALUES // truth.size)
    total = np.zeros_like(observed)
    power, about_truth = np.zeros((2, sphere.truncation + 1))
    for start in range(0, number, size):
        coefficients = _coefficients(members[start : start + size], level, sphere)
        errors = coefficients - observed
        total += errors.sum(axis=0)
        power += _power(coefficients, level).sum(axis=0)
        about_truth += _power(errors, 0.0).sum(axis=0)
    error = total / number
    squared = _power(error, 0.0)
    variance = np.full_like(power, np.nan)
    if number > 1:
        # What is left of equal members by rounding may be negative.
        variance = np.maximum(about_truth - number * squared, 0) / (number - 1)
    return np.stack(
        [
            power / number,
            _power(observed + error, level),
            _power(observed, level),
            squared,
            variance,
            variance * (number + 1) / number,
        ]
    )


def _coefficients(fields: np.ndarray, level: float, sphere: Sphere) -> np.ndarray:
    """Spherical harmonic coefficients of fields less a constant, (field, l, m), complex128."""
    anomaly = (fields.astype(np.float64) - level).astype(np.float32)
    device = sphere.get_buffer("_analysis").device
    with torch.no_grad():
        return sphere.analyse(torch.from_numpy(anomaly).to(device)).cpu().numpy().astype(complex)


def _power(coefficients: np.ndarray, level: float) -> np.ndarray:
    """Power, (..., l), of coefficients, (..., l, m), and of a constant."""
    twice = np.full(coefficients.shape[-1], 2.0)
    twice[0] = 1.0
    squares = coefficients.real**2 + coefficients.imag**2  # numpy.abs takes roots, slowly
    power = (squares @ twice) / (4 * np.pi)
    mean = coefficients[..., 0, 0].real / np.sqrt(4 * np.pi)
    power[..., 0] = (mean + level) ** 2
    return power
