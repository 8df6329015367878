"""What any method wrote, judged beside the raw ensemble."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from pipelines.calibration.folder import Calibration
from pipelines.calibration.judge import CalibrationSettings, calibrate
from pipelines.calibration.methods import method_from
from pipelines.calibration.steps import FitSettings, apply, fit, update
from scoring.quantiles import ensemble_quantiles, interval_statistics
from tests.pipelines.calibration.conftest import INITS, World
from tests.pipelines.calibration.test_steps import truth_of

FITTED = 16
UNTIL = FitSettings(dates=((None, INITS[FITTED - 1]),))


def written(world: World, folder, name: str, dates=(), channels=(), **settings):
    """A store of some dates by a method that was fitted on the first."""
    method = method_from({"method": name} | settings)
    fit(world.forecast, world.truth, folder / "c", method, replace(UNTIL, channels=channels))
    return apply(Calibration.open(folder / "c"), world.forecast, folder / "out.zarr", dates)


@pytest.mark.parametrize("name", ["conformal", "degree_by_degree"])
def test_dates_that_were_not_fitted_on_are_judged_beside_the_raw_ones(world, tmp_path, name):
    store = written(world, tmp_path, name)
    settings = CalibrationSettings(calibrated=[store])
    coverage = calibrate(world.forecast, world.truth, tmp_path / "judged", settings).coverage
    assert coverage.attrs["judged"] == np.datetime_as_string(INITS[FITTED:], "h").tolist()
    assert name in coverage.attrs["notes"][0]
    assert (coverage.dates == INITS.size - FITTED).all()
    later = np.array(INITS[FITTED:], "datetime64[ns]")
    raw = xr.open_zarr(world.forecast).t850.sel(init_time=later).load()
    found = xr.open_zarr(store).t850.sel(init_time=later).load()
    truth = raw.isel(number=0, drop=True).copy(data=truth_of(world, "t850", later))
    quantiles = {
        "before": of_members(raw),
        "after": found if "quantile" in found.dims else of_members(found),
    }
    for stage, one in quantiles.items():
        statistics = interval_statistics(one, truth)
        area = np.cos(np.deg2rad(truth.latitude))
        covered = statistics.covered.weighted(area).mean(["init_time", "latitude", "longitude"])
        np.testing.assert_allclose(
            coverage[stage].sel(channel="t850"), covered.transpose("lead_time", "level"), atol=0.01
        )
    assert (
        abs(coverage.after - coverage.level) < abs(coverage.before - coverage.level)
    ).mean() > 0.9


def of_members(members: xr.DataArray) -> xr.DataArray:
    dates = [
        ensemble_quantiles(date.isel(number=np.flatnonzero(date.completed)))
        for _, date in members.groupby("init_time", squeeze=False)
    ]
    return xr.concat(dates, "init_time")


def test_one_that_learns_is_judged_by_what_was_issued(world, tmp_path):
    method = method_from({"method": "tracking", "rate": 0.3})
    start = FitSettings(dates=((None, INITS[5]),))
    fit(world.forecast, world.truth, tmp_path / "c", method, start)
    stores = []
    for count in (8, 9):
        part = world.cut(tmp_path / f"cut{count}", count)
        update(Calibration.open(tmp_path / "c"), tmp_path / "c", part.forecast, part.truth)
        stores.append(tmp_path / f"{count}.zarr")
        apply(Calibration.open(tmp_path / "c"), part.forecast, stores[-1], [INITS[count - 1]])
    settings = CalibrationSettings(calibrated=stores)
    coverage = calibrate(world.forecast, world.truth, tmp_path / "judged", settings).coverage
    assert coverage.attrs["judged"] == ["2006-01-08T00", "2006-01-09T00"]
    past = apply(
        Calibration.open(tmp_path / "c"), world.forecast, tmp_path / "past.zarr", INITS[:8]
    )
    with pytest.raises(InputError, match=r"past.zarr: no date is left to judge"):
        calibrate(world.forecast, world.truth, tmp_path / "j", replace(settings, calibrated=[past]))


def test_levels_are_those_of_the_stores(world, tmp_path):
    levels = (0.1, 0.25, 0.5, 0.75, 0.9)
    store = written(world, tmp_path, "conformal", levels=levels)
    settings = CalibrationSettings(calibrated=[store])
    coverage = calibrate(world.forecast, world.truth, tmp_path / "judged", settings).coverage
    assert coverage.level.values.tolist() == [0.5, 0.8]
    assert coverage["quantile"].values.tolist() == list(levels)
    narrow = written(world, tmp_path / "narrow", "conformal", levels=(0.4, 0.5, 0.6))
    with pytest.raises(InputError, match=r"no interval of .* has both its ends among the levels"):
        calibrate(
            world.forecast, world.truth, tmp_path / "j", CalibrationSettings(calibrated=[narrow])
        )


def test_channels_are_those_that_all_stores_have(world, tmp_path):
    both = written(world, tmp_path / "both", "conformal", INITS[FITTED:20])
    one = written(world, tmp_path / "one", "conformal", INITS[20:], ("t850",))
    settings = CalibrationSettings(calibrated=[both, one])
    result = calibrate(world.forecast, world.truth, tmp_path / "judged", settings)
    assert result.coverage.channel.values.tolist() == ["t850"]
    assert (result.coverage.dates == INITS.size - FITTED).all()
    assert "Not calibrated, so not judged: ws10m." in result.table()
    alone = CalibrationSettings(("t850",), calibrated=[both, one])
    other = calibrate(world.forecast, world.truth, tmp_path / "alone", alone)
    xr.testing.assert_equal(result.coverage, other.coverage)
    wind = written(world, tmp_path / "wind", "conformal", INITS[FITTED:20], ("ws10m",))
    apart = CalibrationSettings(calibrated=[wind, one])
    with pytest.raises(InputError, match=r"no channel of .* in all of them, .* t850, ws10m"):
        calibrate(world.forecast, world.truth, tmp_path / "j", apart)


def test_what_cannot_be_judged_is_refused_and_nothing_is_written(world, tmp_path):
    store = written(world, tmp_path, "conformal", INITS[FITTED:])
    seen = apply(
        Calibration.open(tmp_path / "c"), world.forecast, tmp_path / "seen.zarr", INITS[:FITTED]
    )
    whole = xr.open_zarr(store).load().drop_encoding()
    other = whole.isel(lead_time=slice(2))
    other.to_zarr(tmp_path / "short.zarr", zarr_format=3, consolidated=False)
    for paths, message in (
        ([seen], "seen.zarr: no date is left to judge"),
        ([store, store], "init time 2006-01-17T00 is in two of"),
        ([world.forecast], "forecast.zarr: was not written by `myriad calibrate apply`"),
        ([tmp_path / "short.zarr"], "t850 has 2 values of lead_time, expected the forecast's 3"),
    ):
        with pytest.raises(InputError, match=message):
            calibrate(
                world.forecast, world.truth, tmp_path / "j", CalibrationSettings(calibrated=paths)
            )
        assert not (tmp_path / "j").exists()
