"""`myriad score --against`: paired differences, from files and from the command line."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner, Result

from data.errors import InputError
from pipelines.against import Scored, compare
from pipelines.cli import main
from pipelines.labels import open_labelled
from pipelines.score import ScoreSettings, score
from pipelines.score_table import ScoreResult
from scoring.moments import SquaredTruth
from scoring.sample import of_difference, of_mean
from scoring.score import CRPS_FAIR, CRPS_STRATIFIED, RMSE
from scoring.significance import EqualWeightedCosine
from scoring.statistic import OMIT
from scoring.sums import Sums
from tests.pipelines.test_labels import contents


@dataclass(frozen=True)
class Pair:
    """Two forecasts of the same truth, scored; the second has half the errors."""

    folder: Path
    truth: Path
    first: Path
    second: Path
    result: ScoreResult

    @property
    def scored(self) -> Path:
        """Scores of the second."""
        return self.folder / "second-scores"

    def other(self, name: str, **coordinates: object) -> Scored:
        """The first, with other coordinates of its sums."""
        changed = self.result.sums.to_dataset().assign_coords(coordinates)
        units = Scored.of(self.result).units
        return Scored(Sums.from_dataset(changed), units, name)


@pytest.fixture(scope="module")
def pair(verified, tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("against")
    store = xr.open_zarr(verified.forecast, consolidated=False).load().drop_encoding()
    observed = xr.open_zarr(verified.truth, consolidated=False).load()
    for name in ("t850", "z500"):
        valid = store.valid_time.values.ravel()
        reached = observed[name].reindex(time=valid).values
        reached = reached.reshape(store.sizes["init_time"], 1, -1, *reached.shape[1:])
        better = store[name].copy(data=(store[name].values + reached) / 2)
        store[name] = xr.where(np.isfinite(better), better, store[name], keep_attrs=True)
    store.to_zarr(folder / "second.zarr", zarr_format=3, consolidated=False)
    result = score(verified.forecast, verified.truth, folder / "scores")
    score(folder / "second.zarr", verified.truth, folder / "second-scores")
    return Pair(folder, verified.truth, verified.forecast, folder / "second.zarr", result)


def compared(pair: Pair, against: Path, output: Path, forecast: Path | None = None) -> Result:
    """`myriad score --against`."""
    arguments = ["--forecast", forecast or pair.first, "--truth", pair.truth]
    arguments += ["--output", output, "--against", against]
    return CliRunner().invoke(main, ["score", *map(str, arguments)])


def test_differences_are_those_of_the_scores_and_named(pair):
    found = compare(pair.result, Scored.load(pair.scored)).differences
    second = open_labelled(pair.scored / "scores.zarr")
    first = pair.result.scores
    for name in ("crps", "rmse"):
        one, two = (scores[name].sel(forecast="ensemble") for scores in (first, second))
        row = found.sel(score=name)
        np.testing.assert_allclose(row.this, one)
        np.testing.assert_allclose(row.other, two)
        np.testing.assert_allclose(row.difference, one - two, atol=1e-9)
        np.testing.assert_allclose(row.skill[..., 1:], (1 - one / two)[..., 1:])
    assert (found.difference.isel(lead_time=slice(1, None)) > 0).all()
    assert found.dates.sel(channel="z500", score="rmse").values[0].tolist() == [6, 6, 6, 5]
    assert found.region.values.tolist() == first.region.values.tolist()
    assert found.units.values.tolist() == ["K", "m2 s-2"]


def test_intervals_are_those_of_the_test_on_one_value_per_date(pair):
    other = Sums.load(pair.scored / "sums.zarr")
    found = compare(pair.result, Scored.load(pair.scored)).differences
    place = {"channel": "t850", "region": "tropics"}
    own = [sums.sel({"forecast": "ensemble"} | place) for sums in (pair.result.sums, other)]
    crps = CRPS_STRATIFIED if "stratified" in found.estimator.values[0] else CRPS_FAIR
    by_date = crps.of(own[0], over=()) - crps.of(own[1], over=())
    expected = {
        "crps": EqualWeightedCosine().of(of_mean(by_date)),
        "rmse": EqualWeightedCosine().of(of_difference(RMSE, *own)),
    }
    for name, result in expected.items():
        row = found.sel(place | {"score": name})
        for variable in ("lower", "upper", "p_value"):
            np.testing.assert_allclose(row[variable], result[variable], rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def told(pair, tmp_path_factory) -> tuple[Result, Path]:
    """What the command line says of the second forecast, and where it wrote."""
    output = tmp_path_factory.mktemp("told")
    return compared(pair, pair.second, output), output


def test_a_forecast_is_scored_alike_and_files_lie_beside_the_scores(pair, told):
    result, output = told
    assert result.exit_code == 0, result.output
    ours = open_labelled(output / "against.zarr").load()
    xr.testing.assert_allclose(ours, compare(pair.result, Scored.load(pair.scored)).differences)
    assert (output / "against" / "scores.csv").exists()
    table = pd.read_csv(output / "against.csv")
    assert list(table.columns) == [
        "score", "estimator", "channel", "units", "region", "lead_hours", "this", "other",
        "difference", "lower", "upper", "p_value", "significant", "skill", "skill_lower",
        "skill_upper", "standard_error", "autocorrelation", "effective_dates", "dates",
    ]  # fmt: skip
    row = table.query(
        "score == 'rmse' and channel == 'z500' and region == 'globe' and lead_hours == 48"
    )
    expected = ours.sel(score="rmse", channel="z500", region="globe").isel(lead_time=2)
    assert row.difference.item() == pytest.approx(float(expected.difference))
    assert row.upper.item() == pytest.approx(float(expected.upper))
    assert bool(row.significant.item()) == bool(expected.significant)


def test_table_has_intervals_marks_and_says_how_to_read_them(pair, told):
    out = told[0].output
    assert "minus" in out
    assert "on 5 to 6 common init times; negative: the first is better" in out
    assert "*: stands out among all channels and leads, false-discovery rate 10%" in out
    assert "as if evenly spaced" in out  # the last gap is shorter
    lines = compare(pair.result, Scored.load(pair.scored)).table(days=(1, 3)).splitlines()
    assert lines[0].split()[:4] == ["channel", "units", "lead", "h"]
    row = next(line for line in lines if line.split()[:3] == ["z500", "m2", "s-2"])
    assert "[" in row
    assert row.endswith("*")


def test_a_forecast_does_not_differ_from_itself(pair):
    found = compare(pair.result, Scored.of(pair.result)).differences
    assert not found.significant.any()
    np.testing.assert_array_equal(found.difference, 0.0)
    assert "or one compared with itself" in " ".join(found.attrs["notes"])
    apart = compare(pair.result, Scored.load(pair.scored)).differences
    assert "with itself" not in " ".join(apart.attrs["notes"])


def test_only_common_dates_count(pair):
    sums = pair.result.sums
    dates = sums.weights["crps_fair"].init_time.values
    late = Scored(sums.sel({"init_time": dates[1:]}), Scored.of(pair.result).units, "late")
    found = compare(pair.result, late).differences
    assert found.dates.max() == 5
    np.testing.assert_array_equal(found.difference, 0.0)


def test_what_only_one_has_is_named(pair):
    sums = pair.result.sums.sel({"channel": ["z500"], "region": ["globe", "tropics"]})
    found = compare(pair.result, Scored(sums, {"z500": "m2 s-2"}, "few")).differences
    notes = " ".join(found.attrs["notes"])
    assert "only one has this channel: t850" in notes
    assert "only one has this region: northern_extratropics, southern_extratropics" in notes
    assert found.channel.values.tolist() == ["z500"]


def test_a_deterministic_forecast_is_compared_by_its_own_crps(pair):
    sums = pair.result.sums.sel({"forecast": ["control"]})
    units = Scored.of(pair.result).units
    found = compare(pair.result, Scored(sums, units, "control")).differences
    assert "against standard" in found.estimator.values[0]
    control = pair.result.scores.crps_standard.sel(forecast="control")
    np.testing.assert_allclose(found.other.sel(score="crps"), control)
    assert any(note.startswith("The CRPS is") for note in found.attrs["notes"])


def test_an_experiment_is_compared_with_another_ones_run(pair, world, tmp_path):
    given = {"truth": str(pair.truth), "analyses": str(pair.truth)}
    for name, store in {"this-one": pair.first, "that-one": pair.second}.items():
        world.experiment(name, **given)
        shutil.copytree(store, tmp_path / name / "forecast.zarr")
    files = [str(world.folder / f"{name}.yaml") for name in ("this-one", "that-one")]
    arguments = ["score", files[0], "--runs", str(tmp_path), "--against", files[1]]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    found = open_labelled(tmp_path / "this-one" / "scores" / "against.zarr")
    assert float(found.difference.sel(score="rmse").isel(lead_time=2).min()) > 0


def refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_nothing_there_is_refused_before_anything_is_scored(pair, tmp_path):
    refused(compared(pair, tmp_path / "none", tmp_path / "out"), 3, "none: is not there")
    assert not (tmp_path / "out").exists()


def test_damaged_scores_are_refused(pair, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(pair.scored, damaged)
    shutil.rmtree(damaged / "scores.zarr")
    refused(compared(pair, damaged, tmp_path / "out"), 6, "scores.zarr: no store is there")
    assert not (tmp_path / "out").exists()


def test_other_channels_are_refused(pair):
    other = pair.other("winds", channel=["u500", "v500"])
    other = Scored(other.sums, {"u500": "m s-1", "v500": "m s-1"}, "winds")
    with pytest.raises(InputError, match=r"winds: has no channel.*found u500, v500, expected"):
        compare(pair.result, other)


def test_other_units_are_refused(pair):
    other = Scored(pair.result.sums, {"t850": "degC", "z500": "m2 s-2"}, "celsius")
    with pytest.raises(InputError, match=r"celsius: t850 has units 'degC', .*'K'"):
        compare(pair.result, other)


def test_other_dates_are_refused(pair):
    times = pair.result.sums.weights["crps_fair"].init_time.values + np.timedelta64(400, "D")
    with pytest.raises(InputError, match=r"later: no init_time is common.*2007"):
        compare(pair.result, pair.other("later", init_time=times))


def test_other_regions_are_refused(pair):
    with pytest.raises(InputError, match=r"boxes: no region is common.*a, b, c, d"):
        compare(pair.result, pair.other("boxes", region=["a", "b", "c", "d"]))


def test_another_grid_of_the_truth_is_refused(pair):
    sums = pair.result.sums
    weights = {
        key: weight * xr.where(weight.region == "tropics", 1.01, 1.0)
        for key, weight in sums.weights.items()
    }
    other = Scored(Sums(sums.totals, weights), Scored.of(pair.result).units, "coarse")
    with pytest.raises(InputError, match=r"coarse.*'tropics'.*different grids"):
        compare(pair.result, other)


def test_dates_with_values_in_different_cells_are_left_out(verified, tmp_path):
    store = xr.open_zarr(verified.forecast, consolidated=False).load().drop_encoding()
    gaps = store.z500.where((store.latitude < 0) | (store.init_time > store.init_time[1]))
    store.assign(z500=gaps).to_zarr(tmp_path / "gaps.zarr", zarr_format=3, consolidated=False)
    settings = ScoreSettings(missing=OMIT)
    whole = score(verified.forecast, verified.truth, tmp_path / "whole", settings=settings)
    part = score(tmp_path / "gaps.zarr", verified.truth, tmp_path / "part", settings=settings)
    found = compare(part, Scored.of(whole))
    cell = found.differences.sel(channel="z500", region="globe").isel(lead_time=1)
    np.testing.assert_array_equal(cell.dates, 4)
    np.testing.assert_array_equal(cell.difference, 0.0)
    assert "2 common init times are left out" in " ".join(found.differences.attrs["notes"])


def test_too_few_common_dates_are_refused_and_nothing_is_written(pair):
    before = sorted(path.name for path in pair.result.output.iterdir())
    dates = pair.result.sums.weights["crps_fair"].init_time.values
    few = Scored(pair.result.sums.sel({"init_time": dates[:3]}), Scored.of(pair.result).units, "x")
    with pytest.raises(InputError, match="at least 4 init times, found 3"):
        compare(pair.result, few)
    assert sorted(path.name for path in pair.result.output.iterdir()) == before


def test_the_order_of_dimensions_does_not_matter(pair):
    sums = pair.result.sums
    turned = Sums(
        {key: total.transpose(*total.dims[::-1]) for key, total in sums.totals.items()},
        {key: weight.transpose(*weight.dims[::-1]) for key, weight in sums.weights.items()},
    )
    like, one = sums.weights["crps_fair"], SquaredTruth().key
    beside = [
        replace(part, totals=part.totals | {one: factor * own}, weights=part.weights | {one: own})
        for part, factor, own in (
            (sums, 1.0, like),
            (turned, 1.0, like.transpose(*like.dims[::-1])),
        )
    ]
    other = Scored(beside[1], Scored.of(pair.result).units, "turned")
    found = compare(replace(pair.result, sums=beside[0]), other).differences
    np.testing.assert_array_equal(found.difference.dropna("lead_time"), 0.0)
    assert not any(note.startswith("Anomalies") for note in found.attrs["notes"])


def test_what_cannot_be_compared_is_refused_before_scores_are_replaced(pair, tmp_path):
    output, few = tmp_path / "out", tmp_path / "few"
    settings = ScoreSettings(channels=("z500",))
    score(pair.first, pair.truth, output, settings=settings)
    shutil.copytree(pair.scored, few)
    sums = Sums.load(few / "sums.zarr")
    shutil.rmtree(few / "sums.zarr")
    sums.sel({"init_time": sums.weights["crps_fair"].init_time.values[:3]}).save(few / "sums.zarr")
    before = contents(output)
    refused(compared(pair, few, output, pair.second), 3, "at least 4 init times, found 3")
    assert contents(output) == before
    (output / "against.csv").write_text("mine\n1\n")
    before = contents(output)
    refused(compared(pair, pair.scored, output), 6, "against.csv: is another file")
    assert contents(output) == before


def test_an_old_comparison_does_not_stay_beside_new_scores(pair, tmp_path):
    first = compared(pair, pair.scored, tmp_path)
    assert first.exit_code == 0, first.output
    assert (tmp_path / "against.zarr").is_dir()
    assert (tmp_path / "against.csv").is_file()
    score(pair.first, pair.truth, tmp_path)
    assert not (tmp_path / "against.zarr").exists()
    assert not (tmp_path / "against.csv").exists()
    (tmp_path / "against.zarr").mkdir()
    (tmp_path / "against.csv").write_text("mine\n1\n")
    score(pair.first, pair.truth, tmp_path)
    assert (tmp_path / "against.zarr").is_dir()
    assert (tmp_path / "against.csv").read_text() == "mine\n1\n"


def repeated(pair: Pair, times: int, noise: float) -> tuple[ScoreResult, Scored]:
    """The first forecast on many dates that are all alike but for noise, and itself without."""
    rng = np.random.default_rng(5)
    sums = pair.result.sums.to_dataset().isel(init_time=np.zeros(times, int))
    days = np.datetime64("2006-01-01", "ns") + np.arange(times) * np.timedelta64(1, "D")
    sums = sums.assign_coords(init_time=days)
    steps = xr.DataArray(rng.normal(size=times), {"init_time": days}, "init_time")
    noisy = {
        name: one * (1 + noise * steps) for name, one in sums.items() if "weight" not in str(name)
    }
    same = Scored(Sums.from_dataset(sums), Scored.of(pair.result).units, "same")
    return replace(pair.result, sums=Sums.from_dataset(sums.assign(noisy))), same


def test_few_dates_are_said_to_tell_little_and_many_are_not(pair):
    notes = compare(pair.result, Scored.load(pair.scored)).differences.attrs["notes"]
    assert any("at least 12.7 standard errors" in note for note in notes)
    notes = compare(*repeated(pair, 60, 0.1)).differences.attrs["notes"]
    assert not any("standard errors" in note or "so alike" in note for note in notes)


def test_another_truth_is_noted(pair):
    key = SquaredTruth().key
    like = pair.result.sums.weights["crps_fair"]
    sums = [
        Sums(
            pair.result.sums.totals | {key: factor * like},
            pair.result.sums.weights | {key: like},
        )
        for factor in (1.0, 1.1)
    ]
    units = Scored.of(pair.result).units
    result = replace(pair.result, sums=sums[0])
    for other, said in zip(sums, (False, True), strict=True):
        notes = compare(result, Scored(other, units, "x")).differences.attrs["notes"]
        assert any(note.startswith("Anomalies of the truth differ") for note in notes) == said
