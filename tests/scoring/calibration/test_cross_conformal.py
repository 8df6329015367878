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


@pytest.mark.parametrize("conformity", [SYMMETRIC, ONE_SIDED], ids=lambda c: c.name)
def test_counting_finds_what_sorting_all_ends_does(conformity):
    rng = np.random.default_rng(4)
    cases, fold = 60, rng.integers(0, 4, 60)
    levels, dims = [0.05, 0.3, 0.5, 0.7, 0.95], ("init_time", "quantile")
    # Rounded, so that many ends are the same; one fold far from the others.
    truth = xr.DataArray(rng.normal(size=cases).round(1), dims="init_time")
    past = xr.DataArray(np.zeros((cases, 5)), {"quantile": levels}, dims)
    new = rng.normal(size=(4, 30, 1)).round(1) + np.array([0.0, 0.0, 0.0, 50.0])[:, None, None]
    new = xr.DataArray(new + np.arange(5), {"quantile": levels}, ("fold", "case", "quantile"))
    fitted = CrossConformal.fit(past, truth, xr.DataArray(fold, dims="init_time"), conformity)
    found = fitted.apply(new)
    expected = new.mean("fold").values
    for margin in conformity.margins(lambda level: truth.values, np.array(levels)):
        place = int(np.ceil(round((1 - margin.alpha) * (cases + 1), 6))) - 1
        for level, direction in margin.moved:
            ends = direction * new.values[fold, :, level] + margin.scores[:, None]
            expected[:, level] = direction * np.sort(ends, axis=0)[place]
    np.testing.assert_allclose(found, np.sort(expected, axis=1), rtol=1e-10, atol=1e-10)


def test_groups_are_calibrated_each_by_itself_and_kept(tmp_path):
    made = [experiment(np.random.default_rng(seed)) for seed in (5, 6)]
    leads = xr.DataArray(np.array([24, 48]) * np.timedelta64(3600, "s").astype("m8[ns]"),
                         dims="lead_time", name="lead_time")  # fmt: skip
    past, truth, new = (
        xr.concat([one[name] for one in made], leads) for name in ("quantiles", "truth", "new")
    )
    truth = truth.copy()
    truth[1, 30:] = np.nan
    fold = made[0]["fold"]
    both = CrossConformal.fit(past, truth, fold, by=("lead_time",))
    both.save(tmp_path / "c.zarr")
    again = CrossConformal.load(tmp_path / "c.zarr")
    some = {"init_time": slice(0, 30)}
    alone = [
        CrossConformal.fit(made[0]["quantiles"], made[0]["truth"], fold),
        CrossConformal.fit(made[1]["quantiles"].isel(some), made[1]["truth"].isel(some),
                           fold.isel(some)),
    ]  # fmt: skip
    # In another order of leads: groups are found by their label.
    found = again.apply(new.isel(lead_time=[1, 0]))
    xr.testing.assert_identical(found, both.apply(new.isel(lead_time=[1, 0])))
    for place, lead in ((0, 1), (1, 0)):
        one = alone[lead].apply(new.isel(lead_time=lead, drop=True))
        np.testing.assert_allclose(found.isel(lead_time=place), one.transpose(*found.dims[1:]))
    with pytest.raises(InputError, match="fitted for lead_time in"):
        again.apply(new.assign_coords(lead_time=leads.values * 3))
    truth[1, 8:] = np.nan
    with pytest.raises(InputError, match="at least 9 cases, found 8 for lead_time 48 h"):
        CrossConformal.fit(past, truth, fold, by=("lead_time",))


def test_a_fold_without_a_forecast_speaks_as_the_others_do():
    made = experiment(np.random.default_rng(7))
    fitted = CrossConformal.fit(made["quantiles"], made["truth"], made["fold"])
    new = made["new"].copy()
    new[2, :100] = np.nan
    new[:, 50] = np.nan
    filled = new.copy()
    filled[2, :100] = new.isel(fold=[0, 1, 3, 4], case=slice(100)).mean("fold")
    found = fitted.apply(new)
    xr.testing.assert_allclose(found, fitted.apply(filled))
    assert found.isnull().all("quantile").values.nonzero()[0].tolist() == [50]


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
