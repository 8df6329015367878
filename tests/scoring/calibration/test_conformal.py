import numpy as np
import pytest
import xarray as xr

from data.errors import InputError, StoreError
from scoring.calibration.conformal import (
    EACH_CASE,
    EACH_DATE,
    ONE_SIDED,
    SYMMETRIC,
    ConformalCalibration,
    Shrinkage,
)
from scoring.calibration.conformity import conformal_quantile
from scoring.dates import KnownBefore, LeaveDateOut, Recent, choose_rule, date_weights

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])
POOLED = ("init_time", "cell")


def case(dates: int, cells: int, seed: int, factor: float = 0.5, bias: float = 0.0):
    """Quantiles that are `factor` too narrow and biased, and truth; two groups."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 5, (2, dates, cells))
    truth = centre + rng.standard_normal(centre.shape) * np.array([1.0, 3.0])[:, None, None]
    quantiles = centre[..., None] + bias + factor * NORMAL
    dims = ("channel", *POOLED)
    coordinates = {"channel": ["a", "b"], "quantile": list(LEVELS)}
    return (
        xr.DataArray(quantiles, coordinates, (*dims, "quantile")),
        xr.DataArray(truth, {"channel": ["a", "b"]}, dims),
    )


def covered(quantiles: xr.DataArray, truth: xr.DataArray, low: int, high: int) -> xr.DataArray:
    inside = (quantiles.isel(quantile=low) <= truth) & (truth <= quantiles.isel(quantile=high))
    return inside.mean(POOLED)


@pytest.mark.parametrize("conformity", [SYMMETRIC, ONE_SIDED], ids=lambda c: c.name)
@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_new_exchangeable_cases_are_covered_as_promised(conformity, factor):
    fitted = ConformalCalibration.fit(*case(60, 100, 1, factor), POOLED, conformity=conformity)
    quantiles, truth = case(60, 100, 2, factor)
    calibrated = fitted.apply(quantiles)
    np.testing.assert_allclose(covered(calibrated, truth, 0, 4), 0.9, atol=0.015)
    np.testing.assert_allclose(covered(calibrated, truth, 1, 3), 0.5, atol=0.025)


def test_small_samples_cover_at_least_what_they_promise():
    quantiles, truth = case(20, 3000, 6)  # every cell a sample of its own
    past, new = {"init_time": slice(0, 19)}, {"init_time": [19]}
    fitted = ConformalCalibration.fit(quantiles.isel(past), truth.isel(past), ("init_time",))
    hits = covered(fitted.apply(quantiles.isel(new)), truth.isel(new), 0, 4).mean()
    assert 0.9 - 0.01 < hits < 0.9 + 1 / 20 + 0.01


def test_one_sided_takes_a_bias_out():
    fitted = ConformalCalibration.fit(
        *case(60, 100, 1, 1.0, bias=2.0), POOLED, conformity=ONE_SIDED
    )
    quantiles, truth = case(60, 100, 2, 1.0, bias=2.0)
    below = (truth <= fitted.apply(quantiles)).mean(POOLED)
    np.testing.assert_allclose(below.transpose("channel", "quantile"), [LEVELS] * 2, atol=0.02)


def test_too_few_cases_are_refused_with_the_number_needed():
    quantiles, truth = case(8, 1, 0)
    with pytest.raises(InputError, match=r"miss rate of 0\.1 needs at least 9 cases, found 8"):
        ConformalCalibration.fit(quantiles, truth, POOLED)
    quantiles, truth = case(9, 1, 0)
    ConformalCalibration.fit(quantiles, truth, POOLED)
    with pytest.raises(InputError, match="needs at least 19 cases, found 9"):
        ConformalCalibration.fit(quantiles, truth, POOLED, conformity=ONE_SIDED)


def test_cells_count_as_cases_only_when_asked_to():
    quantiles, truth = case(8, 50, 0)
    fitted = ConformalCalibration.fit(quantiles, truth, POOLED, counting=EACH_CASE)
    assert fitted.shifts.attrs["cases"] == pytest.approx(400)
    assert fitted.shifts.attrs["dates"] == 8
    with pytest.raises(InputError, match="found 8"):
        ConformalCalibration.fit(quantiles, truth, POOLED, counting=EACH_DATE)


def test_equal_weights_are_no_weights():
    quantiles, truth = case(10, 30, 3)
    plain = ConformalCalibration.fit(quantiles, truth, POOLED)
    equal = xr.DataArray(np.full(30, 0.2), dims="cell")
    np.testing.assert_allclose(
        ConformalCalibration.fit(quantiles, truth, POOLED, equal).shifts, plain.shifts
    )
    uneven = equal.copy(data=np.r_[np.full(29, 0.2), 0.2 * (1 + 1e-9)])
    np.testing.assert_allclose(
        ConformalCalibration.fit(quantiles, truth, POOLED, uneven).shifts, plain.shifts
    )


def test_a_cell_of_weight_zero_has_no_say():
    quantiles, truth = case(10, 30, 3)
    weights = xr.DataArray(np.r_[np.ones(20), np.zeros(10)], dims="cell")
    some = {"cell": slice(0, 20)}
    left = ConformalCalibration.fit(quantiles, truth, POOLED, weights)
    right = ConformalCalibration.fit(quantiles.isel(some), truth.isel(some), POOLED)
    np.testing.assert_allclose(left.shifts, right.shifts)


def test_cases_without_truth_are_left_out():
    quantiles, truth = case(10, 30, 3)
    truth[:, :, 20:] = np.nan
    some = {"cell": slice(0, 20)}
    left = ConformalCalibration.fit(quantiles, truth, POOLED)
    right = ConformalCalibration.fit(quantiles.isel(some), truth.isel(some), POOLED)
    np.testing.assert_allclose(left.shifts, right.shifts, atol=0.3)


def test_quantile_is_the_ceiled_order_statistic():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))[None]
    ones, uneven = np.ones(19), np.r_[np.ones(18), 1 + 1e-12]
    for weights in (ones, uneven):
        assert conformal_quantile(scores, weights, 19.0, 0.1) == 18
        assert conformal_quantile(scores, weights, 19.0, 0.05) == 19
        assert conformal_quantile(scores, weights, 19.0, 0.5) == 10
        assert conformal_quantile(scores, weights, 19.0, 0.04) == np.inf
        assert conformal_quantile(scores, weights, 19.0, 1.0) == -np.inf


def test_calibrated_quantiles_do_not_cross():
    quantiles, truth = case(60, 20, 4, factor=6.0)
    calibrated = ConformalCalibration.fit(quantiles, truth, POOLED).apply(quantiles)
    assert (calibrated.diff("quantile") >= 0).all()
    assert calibrated.dims == quantiles.dims


def test_calibration_survives_a_save_and_load(tmp_path):
    quantiles, truth = case(60, 20, 4)
    fitted = ConformalCalibration.fit(quantiles, truth, (*POOLED, "channel"))
    fitted.save(tmp_path / "calibration.zarr")
    loaded = ConformalCalibration.load(tmp_path / "calibration.zarr")
    xr.testing.assert_identical(loaded.apply(quantiles), fitted.apply(quantiles))
    assert loaded.shifts.attrs["conformity"] == "symmetric CQR"
    with pytest.raises(StoreError, match="no calibration"):
        ConformalCalibration.load(tmp_path / "nothing.zarr")


def test_other_levels_than_fitted_are_refused():
    quantiles, truth = case(60, 20, 4)
    fitted = ConformalCalibration.fit(quantiles, truth, POOLED)
    with pytest.raises(InputError, match="fitted for the levels"):
        fitted.apply(quantiles.isel(quantile=[0, 4]))


def test_levels_without_partner_are_refused():
    quantiles, truth = case(60, 20, 4)
    with pytest.raises(InputError, match="do not come in pairs"):
        ConformalCalibration.fit(quantiles.isel(quantile=[0, 2]), truth, POOLED)


def labelled(dates: int, cells: int, seed: int):
    """One channel, three sites with different biases, two seasons with different errors."""
    rng = np.random.default_rng(seed)
    season = np.where(np.arange(dates) % 2, "dry", "wet")
    width = np.where(season == "wet", 3.0, 1.0)[:, None, None]
    truth = np.array([-2.0, 0.0, 2.0]) + width * rng.standard_normal((dates, cells, 3))
    dims = ("init_time", "cell", "site")
    coordinates = {"site": ["p", "q", "r"], "season": ("init_time", season)}
    quantiles = np.broadcast_to(NORMAL, (*truth.shape, 5)).copy()
    return (
        xr.DataArray(quantiles, coordinates | {"quantile": list(LEVELS)}, (*dims, "quantile")),
        xr.DataArray(truth, coordinates, dims),
    )


def test_each_label_is_calibrated_by_itself():
    fitted = ConformalCalibration.fit(
        *labelled(80, 40, 0), POOLED, conformity=ONE_SIDED, labels=("season",)
    )
    assert fitted.shifts.dims == ("season", "site", "quantile")
    quantiles, truth = labelled(80, 40, 1)
    calibrated = fitted.apply(quantiles)
    for season in ("dry", "wet"):
        chosen = {"init_time": truth.season.values == season}
        hits = covered(calibrated.isel(chosen), truth.isel(chosen), 0, 4)
        np.testing.assert_allclose(hits, 0.9, atol=0.03)
    with pytest.raises(InputError, match=r"season in \['dry', 'wet'\], found \['hot'\]"):
        fitted.apply(quantiles.assign_coords(season=("init_time", ["hot"] * 80)))


def test_labelled_calibration_survives_a_save_and_load(tmp_path):
    quantiles, truth = labelled(80, 4, 0)
    fitted = ConformalCalibration.fit(quantiles, truth, POOLED, labels=("season",))
    fitted.save(tmp_path / "calibration.zarr")
    loaded = ConformalCalibration.load(tmp_path / "calibration.zarr")
    xr.testing.assert_identical(loaded.apply(quantiles), fitted.apply(quantiles))


def test_shrinkage_runs_from_the_group_to_the_pool():
    quantiles, truth = labelled(60, 5, 2)
    own = ConformalCalibration.fit(quantiles, truth, POOLED).shifts
    pool = ConformalCalibration.fit(quantiles, truth, (*POOLED, "site")).shifts
    for cases, expected in ((0.0, own), (300.0, (own + pool) / 2), (1e12, pool + 0 * own)):
        fitted = ConformalCalibration.fit(
            quantiles, truth, POOLED, shrinkage=Shrinkage(("site",), cases)
        )
        np.testing.assert_allclose(fitted.shifts, expected.transpose("site", "quantile"))


def test_a_group_with_too_few_cases_takes_the_shift_of_the_pool():
    quantiles, truth = labelled(60, 5, 2)
    truth[3:, :, 0] = np.nan  # 15 cases left: enough for 80 %, not for the 5 % level
    with pytest.raises(InputError, match="at least 19 cases, found 15 for site p"):
        ConformalCalibration.fit(quantiles, truth, POOLED, conformity=ONE_SIDED)
    fitted = ConformalCalibration.fit(
        quantiles, truth, POOLED, conformity=ONE_SIDED, shrinkage=Shrinkage(("site",), 10.0)
    )
    pool = ConformalCalibration.fit(quantiles, truth, (*POOLED, "site"), conformity=ONE_SIDED)
    assert fitted.shifts.sel(site="p", quantile=0.05) == pool.shifts.sel(quantile=0.05)
    assert fitted.shifts.sel(site="p", quantile=0.25) != pool.shifts.sel(quantile=0.25)


@pytest.mark.parametrize("dates", [3, 12])
def test_a_pool_with_too_few_cases_is_refused(dates):
    past = (one.isel(init_time=slice(dates)) for one in labelled(12, 1, 8))
    with pytest.raises(InputError, match=f"needs at least 19 cases, found {dates}"):
        ConformalCalibration.fit(
            *past, POOLED, conformity=ONE_SIDED, labels=("season",),
            shrinkage=Shrinkage(("season",), 5.0),
        )  # fmt: skip


def test_weights_of_cases_are_known_not_negative_and_of_pooled_dimensions():
    quantiles, truth = case(30, 4, 9)
    for bad in (-1.0, np.nan):
        weights = xr.DataArray([1.0, 1.0, 1.0, bad], dims="cell")
        with pytest.raises(InputError, match="must be known and not negative"):
            ConformalCalibration.fit(quantiles, truth, POOLED, weights)


def test_the_number_of_cases_is_that_of_the_group_with_the_fewest():
    quantiles, truth = case(30, 4, 9)
    truth[1, :7] = np.nan
    attributes = ConformalCalibration.fit(quantiles, truth, POOLED).shifts.attrs
    assert attributes["cases"] == 23 * 4
    assert attributes["dates"] == 30


def test_groups_are_fitted_one_as_the_other_however_many():
    draw = np.random.default_rng(3)
    truth = xr.DataArray(draw.standard_normal((3, 25, 8000)), dims=("channel", "init_time", "site"))
    quantiles = xr.zeros_like(truth) + xr.DataArray(NORMAL, {"quantile": list(LEVELS)}, "quantile")
    whole = ConformalCalibration.fit(quantiles, truth, ("init_time",)).shifts
    for site in (0, 5000, 7999):
        own = {"site": [site]}
        one = ConformalCalibration.fit(quantiles.isel(own), truth.isel(own), ("init_time",)).shifts
        np.testing.assert_array_equal(whole.isel(own), one)
    truth[2, 5:, 6789] = np.nan
    with pytest.raises(InputError, match="found 5 for channel 2, site 6789"):
        ConformalCalibration.fit(quantiles, truth, ("init_time",))


def test_recent_dates_count_by_their_effective_number():
    quantiles, truth = case(60, 30, 3)
    times = np.datetime64("2006-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    quantiles, truth = (array.assign_coords(init_time=times) for array in (quantiles, truth))
    now = times[-1] + np.timedelta64(1, "D")
    weights = date_weights(Recent(np.timedelta64(10, "D")), truth.init_time, now)
    ratio = 0.5**0.1
    effective = (1 - ratio**60) * (1 + ratio) / ((1 - ratio) * (1 + ratio**60))
    fitted = ConformalCalibration.fit(quantiles, truth, POOLED, weights, counting=EACH_DATE)
    assert fitted.shifts.attrs["cases"] == pytest.approx(effective)
    with pytest.raises(InputError, match=r"at least 39 cases, found 27\."):
        ConformalCalibration.fit(
            quantiles.assign_coords(quantile=[0.0125, 0.25, 0.5, 0.75, 0.9875]),
            truth, POOLED, weights, counting=EACH_DATE,
        )  # fmt: skip


def test_recent_dates_follow_a_change():
    quantiles, truth = case(200, 40, 5)
    times = np.datetime64("2006-01-01", "ns") + np.arange(200) * np.timedelta64(1, "D")
    quantiles, truth = (array.assign_coords(init_time=times) for array in (quantiles, truth))
    truth[:, 150:] += 3.0
    weights = date_weights(Recent(np.timedelta64(7, "D")), truth.init_time, times[-1])
    hits = {}
    for name, weight in (("equal", None), ("recent", weights)):
        fitted = ConformalCalibration.fit(
            quantiles, truth, POOLED, weight, conformity=ONE_SIDED
        ).apply(quantiles)
        late = {"init_time": slice(150, None)}
        hits[name] = float((truth <= fitted).isel(late).sel(quantile=0.5).mean())
    assert abs(hits["recent"] - 0.5) < 0.02 < abs(hits["equal"] - 0.5)


INITS = np.datetime64("2006-01-01", "ns") + np.arange(6) * np.timedelta64(4, "D")
DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")


def test_only_what_was_known_fits():
    rule = KnownBefore(3)
    assert rule.judged(INITS).tolist() == [3, 4, 5]
    assert rule.fitting(INITS, 4 * DAY, 3).tolist() == [0, 1, 2]
    assert rule.fitting(INITS, 10 * DAY, 3).tolist() == [0]
    assert rule.fitting(INITS, 10 * DAY, 5).tolist() == [0, 1, 2]
    for judged in rule.judged(INITS):
        for days in range(11):
            fitting = rule.fitting(INITS, days * DAY, judged)
            assert (INITS[fitting] + days * DAY <= INITS[judged]).all()


def test_leaving_one_date_out_never_fits_on_itself():
    rule = LeaveDateOut()
    for judged in rule.judged(INITS):
        assert judged not in rule.fitting(INITS, DAY, judged)


def test_rule_follows_from_the_dates():
    leads = np.arange(11) * DAY
    assert choose_rule(INITS, leads) == KnownBefore(3)
    assert choose_rule(INITS[:3], leads) == LeaveDateOut()
    assert "not available in real time" in choose_rule(INITS[:3], leads).name


def test_too_few_dates_are_refused():
    with pytest.raises(InputError, match="found only 3"):
        KnownBefore(3).judged(INITS[:3])
    with pytest.raises(InputError, match="at least 2 init times"):
        LeaveDateOut().judged(INITS[:1])
