"""What past dates say about members degree by degree and latitude by latitude: sums that merge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data.sphere import Sphere
from scoring.calibration.degree_factors import Powers
from scoring.quantiles import WEIBULL

_LEVELS = (0.5, 0.8, 0.9)
_REACH = np.linspace(0.5, 2.0, 301)


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

    def powers(self, sphere: Sphere) -> Powers:
        """About what the dates and those to come have in common.

        Departures from a mean of dates that are alike are too small, by the variance of that mean,
        of which a quarter of the squared difference of the halves' means is an unbiased estimate.
        """
        count = self.dates[:, None]
        apart = [part[0] - part[1] for part in (self.truth, self.mean)]
        total = [part.sum(axis=0) for part in (self.truth, self.mean)]
        truth, mean, cross, variance = self.products / count
        centred = []
        for power, one, other in ((truth, 0, 0), (mean, 1, 1), (cross, 0, 1)):
            lasting = cross_power(total[one], total[other], sphere)
            between = cross_power(apart[one], apart[other], sphere)
            # Each half has half of the dates, so their means differ by twice `apart` / count.
            centred.append(power - (lasting - between) / count**2)
        truth, mean, cross = centred
        tiny = 1e-12 * (truth + mean).max(axis=1, keepdims=True) + 1e-300
        mean, variance = np.maximum(mean, tiny), np.maximum(variance, tiny)
        return Powers(truth, mean, cross, variance, 1 - count / self.members[:, None])


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
        """Factors in proportion to the root of squared error / variance, (lead_time, latitude),
        which leave the area mean of the variance as it is.

        Parameters
        ----------
        weights : numpy.ndarray
            Area of each latitude, (latitude,).
        """
        error = self.error / self.error_dates[:, None]
        variance = self.variance / self.variance_dates[:, None]
        ratio = np.divide(error, variance, out=np.ones_like(error), where=variance > 0)
        change = (ratio * variance) @ weights / np.maximum(variance @ weights, 1e-300)
        return np.sqrt(ratio / np.maximum(change, 1e-300)[:, None])

    def growth(self, weights: np.ndarray) -> np.ndarray:
        """Root of M / (M + 1) x squared error / variance, area means, (lead_time,): the factor that
        makes the ratio of spread and skill 1 (Fortin et al., 2014, doi:10.1175/JHM-D-14-0008.1).

        Parameters
        ----------
        weights : numpy.ndarray
            Area of each latitude, (latitude,).
        """
        members = self.members / self.variance_dates
        error = self.error @ weights / self.error_dates * members / (members + 1)
        variance = self.variance @ weights / self.variance_dates
        ratio = np.divide(error, variance, out=np.ones_like(error), where=variance > 0)
        return np.sqrt(ratio)


@dataclass(frozen=True)
class SpreadMoments:
    """Sums over dates of what calibrated members lack yet; they merge with `+`.

    Attributes
    ----------
    raw, calibrated : numpy.ndarray
        Members' power about their mean, (lead_time, degree).
    reach : numpy.ndarray
        Area of the truths by the factor that the interval about the mean needs to hold them, for
        the intervals of 50, 80 and 90 % that so many members have, (level, lead_time, factor).
    """

    raw: np.ndarray
    calibrated: np.ndarray
    reach: np.ndarray

    @classmethod
    def of(
        cls, raw: np.ndarray, members: np.ndarray, truth: np.ndarray, sphere: Sphere
    ) -> SpreadMoments:
        """Those of one date.

        Parameters
        ----------
        raw, members : numpy.ndarray
            Raw and calibrated, (number, lead_time, latitude, longitude).
        truth : numpy.ndarray
            (lead_time, latitude, longitude), NaN where it is not known.
        sphere : Sphere
            Grid and truncation.
        """
        known = np.isfinite(truth).all(axis=(1, 2))
        area = sphere.grid.area_weights / sphere.grid.area_weights.sum()
        middle = members.mean(axis=0, dtype=np.float64)
        apart = members - middle
        error = np.where(known[:, None, None], truth - middle, 0.0)
        with torch.no_grad():
            powers = [
                sphere.power(analysed(fields, sphere)).sum(0).numpy().astype(np.float64)
                for fields in (raw - raw.mean(axis=0, dtype=np.float64), apart)
            ]
        return cls(
            *powers,
            _reach(error, np.sort(apart, axis=0), area) * known[:, None],
        )

    def __add__(self, other: SpreadMoments) -> SpreadMoments:
        """Those of both."""
        return SpreadMoments(
            self.raw + other.raw,
            self.calibrated + other.calibrated,
            self.reach + other.reach,
        )

    def growth(self, skill: np.ndarray) -> np.ndarray:
        """By which factor the members are to be drawn apart, (lead_time, 1).

        The geometric mean of two: of `skill`, which makes spread over skill 1, and of that with
        which intervals hold as many of the truths as they say. They differ where members are not
        independent draws, such as +- pairs.

        Parameters
        ----------
        skill : numpy.ndarray
            `ZonalMoments.growth`, (lead_time,).
        """
        held = self.reach.cumsum(axis=2)
        known = held[..., -1] > 0
        wanted = np.array(_LEVELS)[:, None] * held[..., -1]
        factors = [
            [np.interp(target, one[:-1], _REACH) for target, one in zip(*pair, strict=True)]
            for pair in zip(wanted, held, strict=True)
        ]
        count = known.sum(axis=0)
        coverage = np.where(known, factors, 0.0).sum(axis=0) / np.maximum(count, 1)
        return np.sqrt(skill * np.where(count > 0, coverage, skill))[:, None]


def _reach(error: np.ndarray, ordered: np.ndarray, area: np.ndarray) -> np.ndarray:
    """(level, lead_time, factor); levels that so few members do not have are zero."""
    count, leads = len(ordered), len(error)
    found = np.zeros((len(_LEVELS), leads, _REACH.size + 1))
    far = np.where(error == 0, 0.0, np.inf)
    weights = np.broadcast_to(area, error.shape)
    for number, level in enumerate(_LEVELS):
        place = float(WEIBULL.position(np.array([(1 + level) / 2]), count)[0])
        if place > count - 1:
            continue
        high, low = _between(ordered, place), _between(ordered, count - 1 - place)
        end = np.where(error > 0, high, -low)
        factor = np.divide(np.abs(error), end, out=far.copy(), where=end > 0)
        bins = np.searchsorted(_REACH, factor)
        for lead in range(leads):
            found[number, lead] = np.bincount(
                bins[lead].ravel(), weights[lead].ravel(), _REACH.size + 1
            )
    return found


def _between(ordered: np.ndarray, place: float) -> np.ndarray:
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def cross_power(one: np.ndarray, other: np.ndarray, sphere: Sphere) -> np.ndarray:
    """(..., degree) of coefficients, (..., l, m)."""
    with torch.no_grad():
        pair = (torch.from_numpy(part).to(torch.complex64) for part in (one, other))
        return sphere.cross_power(*pair).numpy()


def analysed(fields: np.ndarray, sphere: Sphere) -> torch.Tensor:
    """Coefficients, (..., l, m), of fields, (..., latitude, longitude)."""
    return sphere.analyse(torch.from_numpy(np.ascontiguousarray(fields, dtype=np.float32)))
