"""Member-by-member calibration: every member is moved, none loses its place among the others.

x_i -> a + b m + t (x_i - m), with the ensemble's mean m and t^2 = c^2 + d^2 / g^2, where g is the
mean absolute difference of two members; the parameters make the mean standard CRPS of past cases
least (Van Schaeybroeck and Vannitsem, 2015, doi:10.1002/qj.2397). Ranks, and so the correlations
between channels, cells and leads, stay those of the raw members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from data.errors import InputError
from scoring.calibration.newton import minimise
from scoring.labels import load, save

PARAMETERS = ("a", "b", "c", "d")
_FEWEST_CASES = 10
# |u| is taken as sqrt(u^2 + h^2), h in units of the truth's spread: first smooth, then near exact.
_SMOOTH = (0.05, 0.005)


@dataclass(frozen=True)
class MemberByMember:
    """Fitted parameters.

    Attributes
    ----------
    parameters : xarray.DataArray
        (*groups, parameter): a and d in the unit of the forecast, b and c without.
    """

    parameters: xr.DataArray

    @classmethod
    def fit(
        cls,
        forecast: xr.DataArray,
        truth: xr.DataArray,
        over: Sequence[str] = ("init_time",),
        member_dim: str = "number",
    ) -> MemberByMember:
        """Fit on past ensembles and their truth.

        Parameters
        ----------
        forecast : xarray.DataArray
            Any dimensions with `member_dim`, at least 2 members.
        truth : xarray.DataArray
            The dimensions of `forecast` less `member_dim`; NaN where it is missing.
        over : sequence of str
            Dimensions pooled into one sample; the others are groups, fitted all at a time.
        member_dim : str
            Name of the dimension of members.

        Raises
        ------
        InputError
            If a group has fewer than 10 cases.
        """
        groups = tuple(dim for dim in truth.dims if dim not in over)
        truth, forecast = xr.align(truth, forecast, join="exact", exclude={member_dim})
        size = int(np.prod([truth.sizes[dim] for dim in groups]))
        members = forecast.transpose(*groups, *over, member_dim).values
        observed = truth.transpose(*groups, *over).values
        found = _fit(
            torch.from_numpy(observed.reshape(size, -1).astype(np.float64)),
            torch.from_numpy(members.reshape(size, -1, members.shape[-1]).astype(np.float64)),
        )
        at = {dim: truth[dim] for dim in groups if dim in truth.coords}
        shape = tuple(truth.sizes[dim] for dim in groups)
        return cls(
            xr.DataArray(
                found.numpy().reshape(*shape, len(PARAMETERS)),
                at | {"parameter": list(PARAMETERS)},
                (*groups, "parameter"),
            )
        )

    def apply(self, forecast: xr.DataArray, member_dim: str = "number") -> xr.DataArray:
        """The calibrated members; dimensions, order and type of `forecast`."""
        wide = forecast.astype(np.float64)
        mean = wide.mean(member_dim)
        apart = wide - mean
        a, b, c, d = (self.parameters.sel(parameter=name, drop=True) for name in PARAMETERS)
        difference = _mean_difference(wide, member_dim)
        # Members that are all alike cannot be drawn apart.
        ratio = (d / difference).where(difference > 0, 0.0)
        stretch = np.sqrt(c**2 + ratio**2)
        calibrated = (a + b * mean + stretch * apart).transpose(*forecast.dims)
        return calibrated.astype(forecast.dtype).rename(forecast.name).assign_attrs(forecast.attrs)

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        save(self.parameters.rename("parameters").to_dataset(), path)

    @classmethod
    def load(cls, path: Path) -> MemberByMember:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none.
        """
        found = load(path, "members' parameters are", ["parameters"])
        return cls(found["parameters"].rename(None))


def _fit(truth: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """(group, parameter) from (group, case) and (group, case, member)."""
    known = torch.isfinite(truth) & torch.isfinite(members).all(dim=2)
    cases = known.sum(dim=1)
    if int(cases.min()) < _FEWEST_CASES:
        raise InputError(
            f"member-by-member calibration needs at least {_FEWEST_CASES} cases in every group, "
            f"found {int(cases.min())}: add dates or pool more cells"
        )
    weight = known / cases[:, None]
    truth = torch.where(known, truth, 0.0)
    members = torch.where(known[..., None], members, 0.0)
    mean = members.mean(dim=2)
    apart = members - mean[..., None]
    count = members.shape[2]
    ranks = 2 * torch.arange(1, count + 1, dtype=members.dtype) - count - 1
    difference = 2 * (apart.sort(dim=2).values * ranks).sum(2) / (count * (count - 1))
    centre, middle = ((weight * part).sum(1, keepdim=True) for part in (truth, mean))
    anomaly, departure = truth - centre, mean - middle
    unit = (weight * anomaly**2).sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    slope = (weight * anomaly * departure).sum(1) / (weight * departure**2).sum(1).clamp_min(1e-24)
    rest = (weight * (anomaly - slope[:, None] * departure) ** 2).sum(1).sqrt()
    spread = (weight * (apart**2).mean(2)).sum(1).sqrt().clamp_min(1e-12)
    typical = (weight * difference).sum(1).clamp_min(1e-12)
    stretch = (rest / spread).clamp(1e-2, 1e2) * 0.5**0.5
    start = torch.stack(
        [torch.zeros_like(slope), slope, stretch, stretch * typical / unit[:, 0]], 1
    )

    shrink = (count - 1) / count

    def objective(parameters, truth, departure, apart, difference, weight, smooth):
        a, b, c, d = parameters
        factor = (c**2 + d**2 / difference**2 + 1e-12).sqrt()
        error = (a + b * departure - truth)[:, None] + factor[:, None] * apart
        distance = (error**2 + smooth**2).sqrt().mean(1)
        # The standard CRPS: the fair one takes members for independent draws, which members that
        # are stretched about their own mean are not, and would have them spread too far.
        return (weight * (distance - shrink * factor * difference / 2)).sum()

    floor = 1e-3 * typical[:, None]
    data = (
        anomaly / unit,
        departure / unit,
        apart / unit[..., None],
        difference.clamp_min(floor) / unit,
        weight,
    )
    found = start
    for smooth in _SMOOTH:
        found = minimise(objective, found, (*data, torch.full_like(unit[:, 0], smooth)))
    a, b, c, d = found.unbind(1)
    offset = centre[:, 0] + a * unit[:, 0] - b * middle[:, 0]
    return torch.stack([offset, b, c.abs(), d.abs() * unit[:, 0]], 1)


def _mean_difference(forecast: xr.DataArray, member_dim: str) -> xr.DataArray:
    """Mean absolute difference of two different members."""
    count = forecast.sizes[member_dim]
    axis = forecast.get_axis_num(member_dim)
    ordered = np.sort(forecast.values, axis=axis)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    total = np.tensordot(ordered, ranks, axes=(axis, 0))
    like = forecast.isel({member_dim: 0}, drop=True)
    return like.copy(data=2 * total / (count * (count - 1)))
