import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import properscoring
import pytest
import xarray as xr
import zarr

from data.climatology import Climatology
from data.errors import InputError, StoreError
from data.grid import Grid
from pipelines.labels import open_labelled
from pipelines.score import ScoreSettings, score
from pipelines.score_table import ScoreResult
from scoring.score import CRPS_FAIR, CRPS_STANDARD, CRPS_STRATIFIED
from scoring.statistic import OMIT, PROPAGATE
from scoring.sums import Sums

AREA = Grid("legendre-gauss", 8, 16).area_weights
DAY = np.timedelta64(1, "D")


@pytest.fixture(scope="module")
def result(verified, tmp_path_factory) -> ScoreResult:
    output = tmp_path_factory.mktemp("scores")
    return score(verified.forecast, verified.truth, output, verified.climatology)


def pair(verified, name: str, init: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Finished members, (number, latitude, longitude), and truth, float64."""
    store = xr.open_zarr(verified.forecast, consolidated=False)
    observed = xr.open_zarr(verified.truth, consolidated=False)
    at = store[name].isel(init_time=init, lead_time=lead)
    members = at.values[store.completed.values[init]].astype(float)
    return members, observed[name].sel(time=at.valid_time.values).values.astype(float)


def test_scores_are_area_means_of_the_plain_definitions(verified, result):
    members, observed = pair(verified, "z500", 1, 2)
    at = {"channel": "z500", "init_time": 1, "lead_time": 2, "region": "globe"}
    sums = result.sums
    place = {key: at[key] for key in ("channel", "region")}
    found = CRPS_STANDARD.of(sums, over=()).sel(place).isel(init_time=1, lead_time=2)
    cells = properscoring.crps_ensemble(observed, np.moveaxis(members, 0, -1))
    assert float(found.sel(forecast="ensemble")) == pytest.approx((cells * AREA).sum(), rel=1e-6)
    error = np.abs(members[0] - observed)
    assert float(found.sel(forecast="control")) == pytest.approx((error * AREA).sum(), rel=1e-6)
    start, _ = pair(verified, "z500", 1, 0)
    error = np.abs(start[0] - observed)
    assert float(found.sel(forecast="persistence")) == pytest.approx((error * AREA).sum(), rel=1e-6)
    valid = np.datetime64("2006-01-06")
    quantiles = Climatology(verified.climatology).at([valid], ("z500",)).z500.values
    quantiles = quantiles.reshape(-1, *observed.shape).astype(float)
    cells = properscoring.crps_ensemble(observed, np.moveaxis(quantiles, 0, -1))
    found = float(found.sel(forecast="climatology"))
    assert found == pytest.approx((cells * AREA).sum(), rel=1e-5)


def test_ratios_and_roots_are_those_of_the_plain_definitions_over_dates(verified, result):
    found = result.scores.sel(forecast="ensemble", channel="z500", region="globe")
    for name, expected in _plain_ratios(verified, 2).items():
        assert float(found[name].isel(lead_time=2)) == pytest.approx(expected, rel=1e-5), name


def _plain_ratios(verified, lead: int) -> dict[str, float]:
    """Of cells and of area means, over the init times with this lead."""
    cells, areas = [], []
    for init in range(6):
        members, observed = pair(verified, "z500", init, lead)
        means = [(field * AREA).sum() for field in (*members, observed)]
        areas.append(_moments(np.array(means[:-1]), means[-1]))
        cells.append([(each * AREA).sum() for each in _moments(members, observed)])
    variance, expected, error, unbiased, bias = np.mean(cells, axis=0)
    of_area = np.mean(areas, axis=0)
    return {
        "spread": np.sqrt(variance),
        "rmse": np.sqrt(error),
        "bias": bias,
        "spread_skill": np.sqrt(expected / error),
        "spread_skill_unbiased": np.sqrt(variance / unbiased),
        "spread_skill_area_mean": np.sqrt(of_area[1] / of_area[2]),
        "spread_skill_unbiased_area_mean": np.sqrt(of_area[0] / of_area[3]),
    }


def _moments(members: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, ...]:
    """Variance, what the error should be, the squared error of the mean, the same without what
    the number of members adds, and the error."""
    size, variance = len(members), members.var(axis=0, ddof=1)
    error = members.mean(axis=0) - truth
    return variance, (size + 1) / size * variance, error**2, error**2 - variance / size, error


def test_skill_is_that_of_common_init_times(verified, tmp_path):
    folder = shutil.copytree(verified.forecast, tmp_path / "forecast.zarr")
    store = zarr.open_group(folder)
    store["completed"][0, 1:] = False  # one member has no fair score
    found = score(folder, verified.truth, tmp_path / "out", verified.climatology)
    at = {"channel": "z500", "lead_time": 2 * DAY, "region": "globe"}
    scores, means = found.scores.sel(at), {}
    later = xr.open_zarr(verified.forecast, consolidated=False).init_time.values[1:]
    for name in ("ensemble", "climatology"):
        one = found.sums.sel({"forecast": name})
        kind = CRPS_STRATIFIED if name == "ensemble" else CRPS_STANDARD
        means[name] = kind.of(one, over=()).sel(at | {"init_time": later}).mean("init_time")
    expected = 1 - float(means["ensemble"] / means["climatology"])
    skill = scores.skill_climatology.sel(forecast="ensemble")
    assert float(skill) == pytest.approx(expected, rel=1e-12)
    plain = 1 - scores.crps.sel(forecast="ensemble") / scores.crps.sel(forecast="climatology")
    assert abs(float(plain) - expected) > 1e-4


def test_headline_crps_names_its_estimator(result):
    scores = result.scores
    named = dict(zip(scores.forecast.values, scores.crps_estimator.values, strict=True))
    assert named == {
        "ensemble": "stratified",
        "control": "deterministic",
        "climatology": "standard",
        "persistence": "deterministic",
    }
    ensemble = scores.sel(forecast="ensemble")
    np.testing.assert_array_equal(ensemble.crps, ensemble.crps_stratified)
    assert (ensemble.crps_stratified != ensemble.crps_fair).any()
    assert all("estimator" in array.attrs for name, array in scores.items() if name != "cases")


def test_an_overconfident_ensemble_is_seen_to_be_one(result):
    globe = result.scores.sel(forecast="ensemble", region="globe").isel(lead_time=slice(1, None))
    assert (globe.spread_skill < 0.75).all()
    assert (globe.spread_skill_unbiased < 0.75).all()
    assert (globe.coverage.sel(level=0.9) < 0.8).all()
    np.testing.assert_allclose(globe.rank_histogram.sum("bin"), 1.0)
    assert (globe.rank_histogram.isel(bin=0) > 0.15).all()
    assert (globe.acc > 0.5).all()
    assert (globe.skill_climatology > 0).all()


def test_regions_and_forecasts_come_in_order(result):
    assert result.scores.region.values[0] == "globe"
    assert result.scores.forecast.values[0] == "ensemble"
    assert result.scores.units.values.tolist() == ["K", "m2 s-2"]


def test_what_could_not_be_scored_is_named(result):
    notes = " ".join(result.scores.attrs["notes"])
    assert "2006-01-13T00: 1 of 9 members not finished (3)" in notes
    assert "1 of 24 forecasts (init time and lead) not scored: no truth" in notes
    assert "2006-01-18T00:00:00" in notes
    cases = result.scores.cases.sel(forecast="ensemble", channel="z500")
    assert cases.values.tolist() == [6, 6, 6, 5]


def test_files_hold_what_was_returned(result):
    stored = open_labelled(result.output / "scores.zarr").load()
    plain = xr.open_zarr(result.output / "scores.zarr")  # warnings are errors
    assert plain.region.values.tolist() == stored.region.values.tolist()
    assert plain.lead_time.dtype.kind == "m"
    xr.testing.assert_identical(stored, result.scores)
    expected = CRPS_FAIR.of(result.sums, over=())
    loaded = CRPS_FAIR.of(Sums.load(result.output / "sums.zarr"), over=())
    xr.testing.assert_allclose(loaded.sel(forecast=["ensemble"]).reindex_like(expected), expected)
    table = pd.read_csv(result.output / "scores.csv")
    assert list(table.columns) == [
        "score", "estimator", "forecast", "channel", "region", "lead_hours", "value", "cases",
    ]  # fmt: skip
    row = table.query(
        "score == 'crps' and forecast == 'ensemble' and channel == 'z500' and region == 'tropics'"
        " and lead_hours == 48"
    )
    where = {"forecast": "ensemble", "channel": "z500", "region": "tropics", "lead_time": 2 * DAY}
    assert row.value.item() == pytest.approx(float(result.scores.crps.sel(where)))
    assert row.estimator.item() == "stratified"
    assert "coverage_0.9" in set(table.score)


def test_nothing_but_the_results_is_left_behind(result):
    assert sorted(os.listdir(result.output)) == ["scores.csv", "scores.zarr", "sums.zarr"]


def test_table_is_compact_and_holds_the_notes(result):
    lines = result.table().splitlines()
    assert lines[-len(result.scores.attrs["notes"]) :] == result.scores.attrs["notes"]
    assert "Region: globe. Init times: 6." in lines
    assert any(line.startswith("CRPS: ensemble stratified; ") for line in lines)
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 100
    start = next(place for place, line in enumerate(table) if line.startswith("z500, m² s⁻²"))
    assert table[start].split()[:5] == ["z500,", "m²", "s⁻²", "day", "1"]
    crps = result.scores.crps.sel(forecast="ensemble", channel="z500", region="globe")
    for row, expected in zip(table[start : start + 3], crps.values[1:], strict=True):
        shown = float(row.split("day")[1].split()[1].replace(",", ""))
        assert shown == pytest.approx(expected, rel=0.01)


def test_memory_and_threads_do_not_change_the_scores(verified, result, tmp_path):
    settings = ScoreSettings(channels=("z500",), memory=1, threads=2)
    again = score(verified.forecast, verified.truth, tmp_path, verified.climatology, None, settings)
    later = {"lead_time": slice(1, None)}  # at lead 0 all errors are 0, and ratios mean nothing
    for name, array in again.scores.isel(later).items():
        expected = result.scores[name].sel(channel=["z500"]).isel(later)
        np.testing.assert_allclose(array, expected, rtol=1e-9, err_msg=str(name))


def test_analyses_give_persistence(verified, tmp_path):
    settings = ScoreSettings(channels=("z500",))
    found = score(
        verified.forecast, verified.truth, tmp_path, analysis=verified.truth, settings=settings
    )
    assert "climatology" not in found.scores.forecast
    assert "acc" not in found.scores
    at_start = found.scores.crps.sel(forecast="persistence").isel(lead_time=0)
    np.testing.assert_allclose(at_start, 0.0, atol=1e-6)


def test_scoring_again_replaces_the_results(verified, result):
    output = result.output
    before = result.scores.crps.values
    again = score(verified.forecast, verified.truth, output, verified.climatology)
    np.testing.assert_array_equal(again.scores.crps, before)
    assert sorted(os.listdir(output)) == ["scores.csv", "scores.zarr", "sums.zarr"]


def refused(verified, truth: Path, output: Path, message: str, **options) -> None:
    with pytest.raises(InputError, match=message):
        score(verified.forecast, truth, output / "scores", **options)
    assert not (output / "scores").exists()


def test_missing_channel_is_refused(verified, tmp_path):
    truth = xr.open_zarr(verified.truth, consolidated=False)[["z500"]].load().drop_encoding()
    truth.to_zarr(tmp_path / "t.zarr", zarr_format=3, consolidated=False)
    refused(verified, tmp_path / "t.zarr", tmp_path, r"t\.zarr: channel 't850' is missing")
    settings = ScoreSettings(channels=("q500",))
    refused(verified, verified.truth, tmp_path, "channel 'q500' is missing, found t850, z500",
            settings=settings)  # fmt: skip


def test_other_units_are_refused(verified, tmp_path):
    observed = xr.open_zarr(verified.truth, consolidated=False)
    wrong = observed.t850.load().assign_attrs(units="furlong")
    truth = verified.changed(tmp_path / "t.zarr", t850=wrong)
    refused(verified, truth, tmp_path, "t850 has units 'furlong'.*'K'")


def test_another_grid_is_refused(verified, tmp_path):
    observed = xr.open_zarr(verified.truth, consolidated=False).load().drop_encoding()
    half = observed.isel(longitude=slice(None, None, 2))
    half.to_zarr(tmp_path / "t.zarr", zarr_format=3, consolidated=False)
    refused(verified, tmp_path / "t.zarr", tmp_path, "lies on another grid: longitude has 8 values")


def test_no_common_time_is_refused(verified, tmp_path):
    observed = xr.open_zarr(verified.truth, consolidated=False).load().drop_encoding()
    later = observed.assign_coords(time=observed.time + np.timedelta64(3, "h"))
    later.to_zarr(tmp_path / "t.zarr", zarr_format=3, consolidated=False)
    message = "so no lead can be scored: forecasts of t850 are valid"
    refused(verified, tmp_path / "t.zarr", tmp_path, message)


def test_a_climatology_without_the_channel_is_refused(verified, tmp_path):
    climatology = xr.open_zarr(verified.climatology, consolidated=False).load().drop_encoding()
    climatology[["z500", "z500_mean", "z500_std"]].to_zarr(
        tmp_path / "c.zarr", zarr_format=3, consolidated=False
    )
    refused(verified, verified.truth, tmp_path, "c.zarr: channel 't850' is missing",
            climatology=tmp_path / "c.zarr")  # fmt: skip


def test_an_unwritable_target_is_refused(verified, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        score(verified.forecast, verified.truth, tmp_path / "file" / "scores")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.real
def test_mogreps_has_its_published_standard_crps(tmp_path):
    if "MYRIAD_REAL_DATA" not in os.environ:
        pytest.skip("MYRIAD_REAL_DATA is not set")
    folder = Path(os.environ["MYRIAD_REAL_DATA"]) / "mogreps_uk"
    found = score(sorted(folder.glob("fc_*.nc")), sorted(folder.glob("truth_*.nc")), tmp_path)
    by_date = CRPS_STANDARD.of(found.sums, over=()).sel(forecast="ensemble").squeeze()
    expected = {"t2m": [0.483, 0.358, 0.298], "ws10m": [0.587, 0.500, 0.506]}
    for name, values in expected.items():
        np.testing.assert_allclose(by_date.sel(channel=name), values, atol=5e-4)
    assert found.scores.region.values.tolist() == ["all"]
    assert (found.scores.crps < found.scores.crps_standard).sel(forecast="ensemble").all()


@pytest.mark.parametrize("layout", ["ours", "reference time and step", "one init time"])
def test_every_lead_of_an_ensemble_in_a_file_is_scored(verified, tmp_path, layout):
    with xr.open_zarr(verified.forecast, consolidated=False, decode_timedelta=True) as store:
        cut = store[["t850"]].isel(init_time=slice(0, 3)).load().drop_encoding()
    cut = cut.drop_vars(["checkpoint", "pair", "completed"])
    if layout == "reference time and step":
        cut = cut.rename(init_time="time", lead_time="step")
    elif layout == "one init time":
        cut = cut.isel(init_time=0)
        cut = cut.assign_coords(time=("lead_time", cut.valid_time.values)).drop_vars("valid_time")
        cut = cut.swap_dims(lead_time="time").drop_vars("init_time")
    cut.to_netcdf(tmp_path / "cut.nc")
    found = score(tmp_path / "cut.nc", verified.truth, tmp_path / "scores").scores.crps_fair
    whole = Sums.load(_scored(verified, tmp_path) / "sums.zarr")
    inits = slice(0, 1 if layout == "one init time" else 3)
    expected = CRPS_FAIR.of(whole, over=()).sel(forecast="ensemble", channel="t850")
    expected = expected.isel(init_time=inits).mean("init_time")
    found = found.sel(forecast="ensemble", channel="t850")
    assert found.sizes["lead_time"] == 4
    np.testing.assert_allclose(found, expected.transpose(*found.dims), rtol=1e-6)


def _scored(verified, folder: Path) -> Path:
    score(verified.forecast, verified.truth, folder / "whole")
    return folder / "whole"


@pytest.mark.parametrize("missing", [PROPAGATE, OMIT])
def test_a_channel_whose_values_are_all_missing_is_an_error(verified, tmp_path, missing):
    with xr.open_zarr(verified.forecast, consolidated=False, decode_timedelta=True) as store:
        gone = store.load().drop_encoding()
    gone["z500"] = gone.z500 * np.nan
    gone.to_zarr(tmp_path / "gone.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(InputError, match="z500 has missing values at every lead"):
        score(
            tmp_path / "gone.zarr", verified.truth, tmp_path / "scores",
            settings=ScoreSettings(missing=missing),
        )  # fmt: skip
    assert not (tmp_path / "scores" / "scores.zarr").exists()


def test_a_forecast_in_other_units_than_it_says_is_refused(verified, tmp_path):
    forecast = xr.open_zarr(verified.forecast, consolidated=False, decode_timedelta=True)
    celsius = forecast[["t850"]].load().drop_encoding()
    celsius["t850"] = (celsius.t850 - np.float32(273.15)).assign_attrs(forecast.t850.attrs)
    celsius.to_zarr(tmp_path / "celsius.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(InputError, match=r"celsius.zarr: t850: values .* leave the bounds"):
        score(tmp_path / "celsius.zarr", verified.truth, tmp_path / "out")
    assert not (tmp_path / "out").exists()
