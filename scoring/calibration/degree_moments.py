"""What past dates say about members degree by degree and latitude by latitude: sums that merge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data.sphere import Sphere


@dataclass(frozen=True)
class Moments:
    """Sums over dates of one or several leads; they merge with `+`.

    Attributes
    ----------
    dates : numpy.ndarray
        (lead_time,)
    products : numpy.ndarray
        Power of truth, of the mean, their cross power, and the members' variance with M - 1, each
        over the dates, (4, lead_time, degree).
    members : numpy.ndarray
        M, summed over the dates, (lead_time,).
    truth, mean : numpy.ndarray
        Coefficients summed over the dates, (half, lead_time, l, m), complex: those of the first
        and of the second half by themselves, to tell a lasting error from weather.
    about : numpy.ndarray
        A field that is subtracted from all others, (latitude, longitude), so that float32 does.
    """

    dates: np.ndarray
    products: np.ndarray
    members: np.ndarray
    truth: np.ndarray
    mean: np.ndarray
    about: np.ndarray

    @classmethod
    def of(
        cls, members: np.ndarray, truth: np.ndarray, about: np.ndarray, half: int, sphere: Sphere
    ) -> Moments:
        """Those of one date.

        Parameters
        ----------
        members : numpy.ndarray
            (number, lead_time, latitude, longitude), finite, at least 2 members.
        truth : numpy.ndarray
            (lead_time, latitude, longitude); leads where any of it is NaN are left out.
        about : numpy.ndarray
            Any field near the others, the same for all dates, (latitude, longitude).
        half : {0, 1}
            Which half of the dates it belongs to.
        sphere : Sphere
            Grid and truncation.
        """
        known = np.isfinite(truth).all(axis=(1, 2))
        with torch.no_grad():
            middle = members.mean(axis=0, dtype=np.float64)
            mean = analysed(middle - about, sphere)
            apart = analysed(members - middle, sphere)
            observed = analysed(np.where(known[:, None, None], truth - about, 0.0), sphere)
            products = torch.stack(
                [
                    sphere.power(observed),
                    sphere.power(mean),
                    sphere.cross_power(observed, mean),
                    sphere.power(apart).sum(0) / (len(members) - 1),
                ]
            ).numpy()
        sums = np.zeros((2, 2, *mean.shape), complex)
        sums[:, half] = np.stack([observed.numpy(), mean.numpy()]) * known[:, None, None]
        return cls(
            known.astype(float),
            products.astype(np.float64) * known[:, None],
            len(members) * known.astype(float),
            *sums,
            about,
        )

    def __add__(self, other: Moments) -> Moments:
        """Those of both, which are about the same field."""
        return Moments(
            self.dates + other.dates,
            self.products + other.products,
            self.members + other.members,
            self.truth + other.truth,
            self.mean + other.mean,
            self.about,
        )


@dataclass(frozen=True)
class ZonalMoments:
    """Sums over dates of what is left to do at each latitude; they merge with `+`.

    Attributes
    ----------
    error, variance : numpy.ndarray
        Zonal means of the squared error of the mean and of the members' variance, each over the
        dates, (lead_time, latitude).
    error_dates, variance_dates : numpy.ndarray
        (lead_time,)
    members : numpy.ndarray
        M, summed over `variance_dates`, (lead_time,).
    """

    error: np.ndarray
    variance: np.ndarray
    error_dates: np.ndarray
    variance_dates: np.ndarray
    members: np.ndarray

    @classmethod
    def of_mean(cls, mean: np.ndarray, truth: np.ndarray) -> ZonalMoments:
        """Of the calibrated mean of one date and its truth, (lead_time, latitude, longitude)."""
        error = ((mean - truth) ** 2).mean(axis=2)
        known = np.isfinite(error).all(axis=1)
        error = np.where(known[:, None], error, 0.0)
        nothing = np.zeros(known.size)
        return cls(error, np.zeros_like(error), known.astype(float), nothing, nothing)

    @classmethod
    def of_members(cls, members: np.ndarray) -> ZonalMoments:
        """Of the calibrated members of one date, (number, lead_time, latitude, longitude)."""
        variance = members.var(axis=0, ddof=1, dtype=np.float64).mean(axis=2)
        nothing, one = np.zeros(len(variance)), np.ones(len(variance))
        return cls(np.zeros_like(variance), variance, nothing, one, len(members) * one)

    def __add__(self, other: ZonalMoments) -> ZonalMoments:
        """Those of both."""
        return ZonalMoments(
            self.error + other.error,
            self.variance + other.variance,
            self.error_dates + other.error_dates,
            self.variance_dates + other.variance_dates,
            self.members + other.members,
        )

    def stretch(self, weights: np.ndarray) -> np.ndarray:
        """Root of M / (M + 1) x squared error / variance, (lead_time, latitude), which makes the
        ratio of spread and skill 1 at each latitude (Fortin et al., 2014,
        doi:10.1175/JHM-D-14-0008.1); divided by its area mean where that would raise the spread.

        Parameters
        ----------
        weights : numpy.ndarray
            Area of each latitude, (latitude,).
        """
        members = (self.members / self.variance_dates)[:, None]
        error = self.error / self.error_dates[:, None] * members / (members + 1)
        variance = self.variance / self.variance_dates[:, None]
        ratio = np.divide(error, variance, out=np.ones_like(error), where=variance > 0)
        change = (ratio * variance) @ weights / np.maximum(variance @ weights, 1e-300)
        return np.sqrt(ratio / np.maximum(change, 1.0)[:, None])


def analysed(fields: np.ndarray, sphere: Sphere) -> torch.Tensor:
    """Coefficients, (..., l, m), of fields, (..., latitude, longitude)."""
    return sphere.analyse(torch.from_numpy(np.ascontiguousarray(fields, dtype=np.float32)))
