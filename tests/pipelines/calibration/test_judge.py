import os

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data.errors import InputError
from pipelines.calibration.judge import CalibrationResult, CalibrationSettings, calibrate
from pipelines.labels import open_labelled
from scoring.calibration.conformal import EACH_DATE, ONE_SIDED
from scoring.dates import KnownBefore, LeaveDateOut


@pytest.fixture(scope="module")
def result(verified, tmp_path_factory) -> CalibrationResult:
    output = tmp_path_factory.mktemp("calibrated")
    return calibrate(verified.forecast, verified.truth, output)


def calibrated(result: CalibrationResult) -> xr.Dataset:
    return xr.open_zarr(result.output / "calibrated.zarr", consolidated=False).load()


def test_coverage_comes_close_to_what_is_promised(result):
    later = result.coverage.isel(lead_time=slice(1, None))
    for level in (0.5, 0.8, 0.9, 0.95):
        before, after = (later[stage].sel(level=level) for stage in ("before", "after"))
        assert (before < level - 0.06).all()
        assert abs(after.mean() - level) < 0.03
    assert (later.score_after < later.score_before).all()


def test_the_rule_is_named_in_every_output(result):
    stated = "truth known before the judged init time; the first 1 init times only fit"
    assert result.coverage.attrs["rule"] == stated
    assert calibrated(result).attrs["rule"] == stated
    assert stated in result.table()


def test_store_has_a_quantile_dimension_and_ordered_quantiles(result):
    store = calibrated(result)
    assert store.z500.dims == ("init_time", "quantile", "lead_time", "latitude", "longitude")
    assert store.z500.attrs["units"] == "m2 s-2"
    assert store.sizes["init_time"] == 5
    assert (store.z500.diff("quantile").fillna(0) >= 0).all()
    assert store.z500.notnull().all()


def test_what_was_not_known_has_no_say(verified, result, tmp_path):
    observed = xr.open_zarr(verified.truth, consolidated=False).load()
    inits = xr.open_zarr(verified.forecast, consolidated=False).init_time.values
    noise = np.random.default_rng(0).normal(0, 500, observed.z500.shape)
    future = observed.z500.where(observed.time <= inits[2], observed.z500 + noise)
    future = future.astype(np.float32).transpose(*observed.z500.dims)
    changed = verified.changed(tmp_path / "t.zarr", z500=future.assign_attrs(observed.z500.attrs))
    settings = CalibrationSettings(channels=("z500",))
    again = calibrated(calibrate(verified.forecast, changed, tmp_path / "out", settings))
    first = calibrated(result)
    np.testing.assert_array_equal(again.z500.isel(init_time=1), first.z500.isel(init_time=1))
    assert not np.array_equal(again.z500.isel(init_time=4), first.z500.isel(init_time=4))


def test_coverage_is_also_a_table_and_a_store(result):
    xr.testing.assert_identical(
        open_labelled(result.output / "coverage.zarr").load(), result.coverage
    )
    table = pd.read_csv(result.output / "coverage.csv")
    assert {"channel", "level", "before", "after", "dates"} <= set(table.columns)
    names = ["calibrated.zarr", "coverage.csv", "coverage.zarr"]
    assert sorted(os.listdir(result.output)) == names


def test_memory_does_not_change_the_quantiles(verified, result, tmp_path):
    settings = CalibrationSettings(channels=("t850",), memory=1)
    again = calibrated(calibrate(verified.forecast, verified.truth, tmp_path, settings))
    np.testing.assert_array_equal(again.t850, calibrated(result).t850)


def test_leaving_one_date_out_judges_all_dates(verified, tmp_path):
    settings = CalibrationSettings(("z500",), rule=LeaveDateOut(), conformity=ONE_SIDED)
    found = calibrate(verified.forecast, verified.truth, tmp_path, settings)
    assert found.coverage.dates.values.tolist() == [[6, 6, 6, 5]]
    after = found.coverage.after.isel(lead_time=slice(1, None)).mean("lead_time")
    np.testing.assert_allclose(after.squeeze("channel"), after.level, atol=0.03)


def test_too_few_dates_are_refused_with_the_number_needed_and_nothing_is_written(
    verified, tmp_path
):
    settings = CalibrationSettings(("z500",), rule=KnownBefore(2), counting=EACH_DATE)
    with pytest.raises(InputError, match="needs at least 19 cases, found 2"):
        calibrate(verified.forecast, verified.truth, tmp_path / "out", settings)
    assert os.listdir(tmp_path / "out") == []
    with pytest.raises(InputError, match="first 6 init times"):
        calibrate(verified.forecast, verified.truth, tmp_path / "out",
                  CalibrationSettings(rule=KnownBefore(6)))  # fmt: skip


def test_coverage_is_also_told_by_region_date_and_quantile(verified, result):
    coverage = result.coverage
    assert coverage.region_after.dims == ("channel", "lead_time", "level", "region")
    assert {"globe", "tropics"} <= set(coverage.region.values.tolist())
    xr.testing.assert_equal(coverage.region_after.sel(region="globe", drop=True), coverage.after)
    assert coverage.date_after.dims == ("channel", "init_time", "level")
    assert coverage.sizes["init_time"] == 5
    later = coverage.isel(lead_time=slice(1, None))
    error = abs(later.below_after - later["quantile"]).mean()
    assert error < abs(later.below_before - later["quantile"]).mean()
    assert error < 0.03


def test_both_stores_open_without_options_and_say_what_they_hold(result):
    calibrated = xr.open_zarr(result.output / "calibrated.zarr")  # a warning is an error
    assert list(calibrated.data_vars) == list(result.coverage.channel.values)
    coverage = xr.open_zarr(result.output / "coverage.zarr")
    assert list(coverage.data_vars) == list(result.coverage.data_vars)
    for store in (calibrated, coverage):
        assert store.attrs["source"].startswith("myriadcast")
        assert all(array.attrs["long_name"] for array in store.data_vars.values())
    assert coverage.after.attrs["units"] == "1"
    assert coverage.width_after.attrs["long_name"].endswith("in the units of the channel")
