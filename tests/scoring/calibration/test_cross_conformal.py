import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring.calibration.conformal import ONE_SIDED, SYMMETRIC, ConformalCalibration
from scoring.calibration.cross_conformal import CrossConformal
from scoring.dates import folds

LEVELS = [0.05, 0.5, 0.95]


def straight_line(x: np.ndarray, y: np.ndarray, powers: int) -> np.ndarray:
    return np.polynomial.polynomial.polyfit(x, y, powers)


def experiment(rng: np.random.Generator, count: int = 40, powers: int = 6):
    """A regression with too many parameters, its fits without each fold, and new cases."""
    x, new = rng.uniform(-1, 1, count), rng.uniform(-1, 1, 200)
    y, truth = (np.sin(2 * v) + 0.5 * rng.standard_normal(v.size) for v in (x, new))
    times = np.arange(count)
    fold, seen = np.zeros(count, int), np.zeros(count)
    speak = []
    for number, (fitting, out) in enumerate(folds(times, 5)):
        line = straight_line(x[fitting], y[fitting], powers)
        fold[out] = number
        seen[out] = np.polynomial.polynomial.polyval(x[out], line)
        speak.append(np.polynomial.polynomial.polyval(new, line))
    whole = straight_line(x, y, powers)
    width = np.array([-0.1, 0.0, 0.1])
    at = {"quantile": LEVELS}
    return {
        "quantiles": xr.DataArray(seen[:, None] + width, at, ("init_time", "quantile")),
        "naive": xr.DataArray(
            np.polynomial.polynomial.polyval(x, whole)[:, None] + width, at,
            ("init_time", "quantile"),
        ),
        "truth": xr.DataArray(y, dims="init_time"),
        "fold": xr.DataArray(fold, dims="init_time"),
        "new": xr.DataArray(np.stack(speak)[..., None] + width, at, ("fold", "case", "quantile")),
        "new_naive": xr.DataArray(
            np.polynomial.polynomial.polyval(new, whole)[:, None] + width, at,
            ("case", "quantile"),
        ),
        "new_truth": xr.DataArray(truth, dims="case"),
    }  # fmt: skip


def coverage(quantiles: xr.DataArray, truth: xr.DataArray) -> float:
    low, high = quantiles.isel(quantile=0), quantiles.isel(quantile=-1)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("conformity", [SYMMETRIC, ONE_SIDED], ids=lambda c: c.name)
def test_fits_that_saw_their_cases_do_not_spoil_coverage(conformity):
    rng = np.random.default_rng(0)
    cross, naive = [], []
    for _ in range(60):
        made = experiment(rng)
        fitted = CrossConformal.fit(made["quantiles"], made["truth"], made["fold"], conformity)
        cross.append(coverage(fitted.apply(made["new"]), made["new_truth"]))
        split = ConformalCalibration.fit(
            made["naive"], made["truth"], ("init_time",), conformity=conformity
        )
        naive.append(coverage(split.apply(made["new_naive"]), made["new_truth"]))
    assert np.mean(cross) > 0.89
    assert np.mean(naive) < np.mean(cross) - 0.03


def test_fits_that_agree_give_split_conformal():
    made = experiment(np.random.default_rng(1))
    agree = made["new"].isel(fold=[0] * 5)
    fitted = CrossConformal.fit(made["quantiles"], made["truth"], made["fold"])
    split = ConformalCalibration.fit(made["quantiles"], made["truth"], ("init_time",))
    xr.testing.assert_allclose(
        fitted.apply(agree), split.apply(agree.isel(fold=0)).transpose("case", "quantile")
    )


def test_it_is_the_order_statistic_of_its_definition():
    made = experiment(np.random.default_rng(2))
    result = CrossConformal.fit(made["quantiles"], made["truth"], made["fold"]).apply(made["new"])
    error = (made["truth"] - made["quantiles"]).values
    scores = np.maximum(-error[:, 0], error[:, 2])
    for case in range(5):
        ends = made["new"].values[made["fold"].values, case]
        low = np.sort(ends[:, 0] - scores)[int(np.floor(0.1 * 41 + 1e-9)) - 1]
        high = np.sort(ends[:, 2] + scores)[int(np.ceil(0.9 * 41 - 1e-9)) - 1]
        np.testing.assert_allclose(result[case, [0, 2]], [low, high])


def test_too_few_cases_and_folds_are_refused():
    made = experiment(np.random.default_rng(3))
    few = {"init_time": slice(0, 8)}
    with pytest.raises(InputError, match="at least 9 cases, found 8"):
        CrossConformal.fit(
            made["quantiles"].isel(few), made["truth"].isel(few), made["fold"].isel(few)
        )
    fitted = CrossConformal.fit(made["quantiles"], made["truth"], made["fold"])
    with pytest.raises(InputError, match="fitted on 5 folds, found 3"):
        fitted.apply(made["new"].isel(fold=slice(0, 3)))
