import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data.errors import InputError
from data.key import Key
from scoring.calibration.conformal import ConformalCalibration
from scoring.calibration.cross_conformal import CrossConformal
from scoring.calibration.online import OnlineCalibration
from scoring.calibration.quantile_forecast import (
    check_quantile_forecast,
    from_long,
    from_wide,
    lagged,
    quantiles_by,
    truth_at_valid_time,
    truth_from_table,
)
from scoring.calibration.tracking import QuantileTracking
from scoring.quantiles import ensemble_quantiles, quantile_score

LEVELS = (0.1, 0.5, 0.9)
DAYS = pd.date_range("2024-01-01", periods=4)
LEADS = pd.to_timedelta([1, 2, 3], unit="D")
KEYS = ["model", "init_time", "site"]


def wide() -> pd.DataFrame:
    """Two models, two dates, two sites; one row is missing."""
    index = pd.MultiIndex.from_product([["a", "b"], DAYS[:2], ["x", "y"]], names=KEYS)
    values = np.arange(24.0).reshape(8, 3)
    table = pd.DataFrame(values, index, ["q0.10", "q0.5", "0.9"]).reset_index()
    return table.drop(index=5)


def long() -> pd.DataFrame:
    renamed = wide().rename(columns={"q0.10": 0.1, "q0.5": 0.5, "0.9": 0.9})
    return renamed.melt(KEYS, var_name="quantile", value_name="value")


def test_long_and_wide_tables_give_the_same_forecast():
    forecast = from_wide(wide(), KEYS)
    assert forecast.dims == (*KEYS, "quantile")
    assert forecast.sel(model="a", init_time="2024-01-02", site="y", quantile=0.5) == 10.0
    assert np.isnan(forecast.sel(model="b", init_time="2024-01-01", site="y")).all()
    assert int(forecast.notnull().sum()) == 21
    found = from_long(long().sample(frac=1, random_state=1).astype({"quantile": float}), KEYS)
    xr.testing.assert_equal(found, forecast)


def test_categories_and_single_precision_are_kept_out_of_the_labels():
    table = wide().astype({"model": "category", "q0.10": "f4", "q0.5": "f4", "0.9": "f4"})
    forecast = from_wide(table, KEYS)
    assert forecast.dtype == np.float32
    assert forecast["model"].values.tolist() == ["a", "b"]


def test_columns_can_be_named():
    table = wide().rename(columns={"0.9": "high", "q0.10": "low", "q0.5": "middle"})
    found = from_wide(table, KEYS, {"low": 0.1, "middle": 0.5, "high": 0.9})
    xr.testing.assert_equal(found, from_wide(wide(), KEYS))


def test_bad_tables_are_refused():
    doubled = pd.concat([wide(), wide().iloc[[3]]])
    with pytest.raises(InputError, match=r"1 rows repeat a key .* is a, .*, y"):
        from_wide(doubled, KEYS)
    with pytest.raises(InputError, match="rows repeat a key"):
        from_long(pd.concat([long(), long().iloc[[3]]]), KEYS)
    with pytest.raises(InputError, match=r"no columns \['site'\]"):
        from_wide(wide().drop(columns="site"), KEYS)
    with pytest.raises(InputError, match="must increase"):
        from_wide(wide()[[*KEYS, "q0.5", "q0.10"]], KEYS)
    with pytest.raises(InputError, match="within"):
        from_wide(wide().rename(columns={"0.9": "1.5"}), KEYS)
    with pytest.raises(InputError, match="no column is named by a level"):
        from_wide(wide()[KEYS], KEYS)


def ensemble() -> xr.DataArray:
    """(init_time, number, lead_time)"""
    coordinates = {
        "init_time": DAYS,
        "number": np.arange(10),
        "lead_time": LEADS,
        "checkpoint": ("number", ["p", "q"] * 5),
    }
    values = Key(1).generator().normal(size=(4, 10, 3))
    return xr.DataArray(values, coordinates, ("init_time", "number", "lead_time"))


def test_parts_of_an_ensemble_become_models():
    forecast = ensemble()
    found = quantiles_by(forecast, "checkpoint", LEVELS)
    assert found["model"].values.tolist() == ["p", "q"]
    for name in ("p", "q"):
        part = forecast.isel(number=forecast["checkpoint"].values == name)
        expected = ensemble_quantiles(part.drop_vars("checkpoint"), LEVELS)
        np.testing.assert_array_equal(found.sel(model=name), expected)
    with pytest.raises(InputError, match="perturbation is not a coordinate along number"):
        quantiles_by(forecast, "perturbation", LEVELS)


def test_lagged_forecasts_are_for_the_same_valid_time():
    quantiles = ensemble_quantiles(ensemble().drop_vars("checkpoint"), LEVELS)
    found = lagged(quantiles, [np.timedelta64(0, "h"), np.timedelta64(24, "h")])
    assert found["model"].values.tolist() == ["lag 0 h", "lag 24 h"]
    np.testing.assert_array_equal(found.isel(model=0), quantiles)
    earlier = found.isel(model=1, init_time=2, lead_time=1)
    np.testing.assert_array_equal(earlier, quantiles.isel(init_time=1, lead_time=2))
    assert np.isnan(found.isel(model=1, init_time=0)).all()
    assert np.isnan(found.isel(model=1, lead_time=2)).all()
    with pytest.raises(InputError, match="must not be negative"):
        lagged(quantiles, [np.timedelta64(-1, "h")])


def test_truth_is_set_out_by_init_and_lead_time():
    table = pd.DataFrame({"valid_time": DAYS[1:], "site": "x", "value": [1.0, 2.0, 3.0]})
    truth = truth_from_table(table, ["valid_time", "site"])
    forecast = xr.DataArray(
        np.zeros((4, 3, 1)),
        {"init_time": DAYS, "lead_time": LEADS, "site": ["x"]},
        ("init_time", "lead_time", "site"),
    )
    found = truth_at_valid_time(truth, forecast)
    assert found.dims == ("init_time", "lead_time", "site")
    np.testing.assert_array_equal(
        found.isel(site=0), [[1, 2, 3], [2, 3, np.nan], [3, np.nan, np.nan], [np.nan] * 3]
    )


def test_what_is_no_quantile_forecast_is_refused():
    quantiles = from_wide(wide(), KEYS)
    check_quantile_forecast(quantiles, ("model",))
    with pytest.raises(InputError, match="needs a dimension quantile"):
        check_quantile_forecast(quantiles.isel(quantile=0))
    with pytest.raises(InputError, match="must increase"):
        check_quantile_forecast(quantiles.isel(quantile=[1, 0]))
    with pytest.raises(InputError, match="two models have one name"):
        check_quantile_forecast(quantiles.isel(model=[0, 0]))


def of_dates(levels: list[float]) -> tuple[xr.DataArray, xr.DataArray]:
    """A quantile forecast of one model for 24 dates, and its truth."""
    rng = np.random.default_rng(1)
    at = {"init_time": np.arange(24).astype("datetime64[D]").astype("datetime64[ns]")}
    at["lead_time"] = np.array([24]) * np.timedelta64(3600, "s").astype("timedelta64[ns]")
    truth = xr.DataArray(rng.normal(size=(24, 1)), at, tuple(at))
    values = truth.values[..., None] + rng.normal(size=(24, 1, 1)) + np.arange(len(levels))
    return xr.DataArray(values, {**at, "quantile": levels}, (*at, "quantile")), truth


FITS = {
    "conformal": lambda quantiles, truth: ConformalCalibration.fit(quantiles, truth, ["init_time"]),
    "cross": lambda quantiles, truth: CrossConformal.fit(
        quantiles, truth, truth.init_time.copy(data=np.arange(24) % 3)
    ),
    "online": lambda quantiles, truth: OnlineCalibration.start(
        QuantileTracking(0.1), quantiles, truth
    ),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([0.9, 0.5, 0.1], r"levels must increase, found \(0\.9, 0\.5, 0\.1\)"),
        ([0.0, 0.5, 1.0], r"levels must lie within \(0, 1\), found \(0\.0, 0\.5, 1\.0\)"),
    ],
)
def test_levels_that_are_none_fit_nothing(fit, levels, message):
    with pytest.raises(InputError, match=message):
        fit(*of_dates(levels))
    with pytest.raises(InputError, match=message):
        quantile_score(*of_dates(levels))


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_truth_of_other_cases_fits_nothing(fit):
    quantiles, truth = of_dates([0.1, 0.5, 0.9])
    fit(quantiles, truth)
    later = truth.assign_coords(init_time=truth.init_time + np.timedelta64(1, "D"))
    with pytest.raises(InputError, match="forecasts and truth have different coordinates"):
        fit(quantiles, later)
    with pytest.raises(InputError, match="a quantile forecast needs a dimension quantile"):
        fit(truth, truth)
