"""Options of a scoring run: masks, missing values, members in blocks, what cannot be scored."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from data.errors import InputError
from data.grid import Grid
from pipelines.against import Scored, compare
from pipelines.cli import main
from pipelines.masks import open_mask
from pipelines.members import MemberBlocks
from pipelines.score import ScoreSettings, score
from pipelines.score_table import ScoreResult
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED
from scoring.moments import AnomalyProduct, SquaredError, Variance
from scoring.rank import Outlier
from scoring.regions import REGIONS, Band
from scoring.statistic import OMIT

Z500 = {"channel": "z500", "region": "globe", "forecast": "ensemble"}
GRID = Grid("legendre-gauss", 8, 16)


@pytest.fixture(scope="module")
def plain(verified, tmp_path_factory) -> ScoreResult:
    return scored(verified, tmp_path_factory.mktemp("plain"))


def scored(verified, output: Path, forecast: Path | None = None, **settings) -> ScoreResult:
    chosen = ScoreSettings(channels=("z500",), **settings)
    forecast = forecast or verified.forecast
    return score(forecast, verified.truth, output, verified.climatology, settings=chosen)


def changed(verified, target: Path, change) -> Path:
    """A copy of the forecast store with something changed."""
    with xr.open_zarr(verified.forecast, consolidated=False) as dataset:
        change(dataset.load().drop_encoding()).to_zarr(target, zarr_format=3, consolidated=False)
    return target


def with_gaps(dataset: xr.Dataset) -> xr.Dataset:
    """Two members missing in a third of the cells, and all of them in one."""
    dataset.z500.values[:, 2:4, :, :, :5] = np.nan
    dataset.z500.values[:, :, :, 0, 0] = np.nan
    return dataset


def mask_file(folder: Path, **names: str) -> Path:
    """1 over the first half of each circle, as a NetCDF file with short names."""
    land = xr.DataArray(
        np.broadcast_to(np.arange(16) < 8, (1, *GRID.shape)).astype("f4"),
        {"lat": GRID.latitude, "lon": GRID.longitude},
        ("time", "lat", "lon"),
    )
    land.rename(names).to_dataset(name="lsm").to_netcdf(folder / "land.nc")
    return folder / "land.nc"


def test_a_mask_is_a_weight(verified, tmp_path):
    mask = open_mask(f"{mask_file(tmp_path)}:lsm")
    found = scored(verified, tmp_path / "a", mask=mask)
    half = changed(verified, tmp_path / "f.zarr", with_nothing_over_sea)
    other = scored(verified, tmp_path / "b", half, mask=mask)
    later = {"lead_time": slice(1, None)}  # at lead 0 all errors are 0, and ratios mean nothing
    for name in ("crps", "rmse", "bias", "spread_skill_area_mean",
                 "spread_skill_unbiased_area_mean", "rank_histogram", "acc"):  # fmt: skip
        ensemble = [result.scores[name].sel(forecast="ensemble") for result in (found, other)]
        np.testing.assert_allclose(ensemble[1].isel(later), ensemble[0].isel(later))
    weight = found.sums.weights[CRPS(FAIR).key].sel(Z500)
    np.testing.assert_allclose(weight.isel(lead_time=0), 0.5)


def test_scores_of_other_settings_are_not_compared(verified, plain, tmp_path):
    mask = open_mask(f"{mask_file(tmp_path)}:lsm")
    box = dict(REGIONS) | {"tropics": Band(-23.0, 23.0)}
    for number, (settings, message) in enumerate((
        ({"mask": mask}, "mask is 'none' and '[0-9a-f]{16}'"),
        ({"missing": OMIT}, "missing is 'propagate' and 'omit'"),
        ({"members": MemberBlocks(128)}, "members is 'all_members' and 'member_blocks_size_128"),
        ({"regions": box}, "region tropics is 'band_south_-19.*' and 'band_south_-23"),
    )):  # fmt: skip
        other = scored(verified, tmp_path / str(number), **settings)
        with pytest.raises(InputError, match=message):
            compare(plain, Scored.load(other.output))
        with pytest.raises(InputError, match=message):
            plain.sums + other.sums


def test_sums_of_two_climatologies_do_not_mix(verified, plain, tmp_path):
    with xr.open_zarr(verified.climatology, consolidated=False) as dataset:
        warmer = dataset.load().drop_encoding()
    warmer["z500_mean"] = warmer.z500_mean + 0.5
    warmer.to_zarr(tmp_path / "warmer.zarr", zarr_format=3, consolidated=False)
    of_none, of_other = (
        score(
            verified.forecast, verified.truth, tmp_path / name, climatology,
            settings=ScoreSettings(channels=("z500",)),
        ).sums
        for name, climatology in (("none", None), ("other", tmp_path / "warmer.zarr"))
    )  # fmt: skip
    with pytest.raises(InputError, match=r"climatology is '[0-9a-f]{16}' and '[0-9a-f]{16}'"):
        plain.sums + of_other
    assert (of_none + of_other).settings == of_other.settings


def with_nothing_over_sea(dataset: xr.Dataset) -> xr.Dataset:
    dataset.z500.values[..., 8:] = np.nan
    return dataset


def test_a_mask_that_does_not_fit_is_refused(verified, tmp_path):
    path = mask_file(tmp_path)
    with pytest.raises(InputError, match="variable 'sea' is missing, found lsm"):
        open_mask(f"{path}:sea")
    with pytest.raises(InputError, match="expected FILE:VARIABLE"):
        open_mask("land.nc")
    mask = open_mask(f"{path}:lsm")
    for wrong, message in (
        (mask.isel(latitude=slice(4)), "its latitude is not the forecast's"),
        (mask.isel(latitude=slice(None, None, -1)), "its latitude is not the forecast's"),
        (mask.isel(latitude=0), "has dimensions"),
        (mask - 0.5, "must not be negative"),
        (mask * 0.0, "nor 0 everywhere"),
    ):
        with pytest.raises(InputError, match=message):
            scored(verified, tmp_path / "out", mask=wrong)
    assert not (tmp_path / "out").exists()


def test_missing_members_propagate_or_are_left_out_with_true_counts(verified, plain, tmp_path):
    gaps = changed(verified, tmp_path / "f.zarr", with_gaps)
    with pytest.raises(InputError, match="missing values at every lead"):
        scored(verified, tmp_path / "a", gaps)
    ensemble = {"forecast": "ensemble", "region": "globe"}
    found = scored(verified, tmp_path / "b", gaps, missing=OMIT)
    fair = [
        result.scores.crps_fair.sel(ensemble).isel(lead_time=slice(1, None))
        for result in (found, plain)
    ]
    np.testing.assert_allclose(*fair, rtol=0.1)
    weight = found.sums.weights[CRPS(FAIR).key].sel(Z500)
    lost = float(GRID.area_weights[0, 0])
    np.testing.assert_allclose(weight.isel(lead_time=0), 1 - lost)


def test_the_stratified_crps_takes_no_cells_from_other_scores(verified, tmp_path):
    gaps = changed(verified, tmp_path / "f.zarr", with_one_of_a_checkpoint_left)
    sums = scored(verified, tmp_path / "a", gaps, missing=OMIT).sums
    weights = {key: sums.weights[key].sel(Z500) for key in sums.keys}
    lost = float(GRID.area_weights[:, :5].sum())
    for estimator in (FAIR, STANDARD, STRATIFIED):  # side by side
        np.testing.assert_allclose(weights[CRPS(estimator).key].isel(lead_time=0), 1 - lost)
    for statistic in (SquaredError(), Variance(), Outlier(), AnomalyProduct()):
        np.testing.assert_allclose(weights[statistic.key].isel(lead_time=0), 1.0)


def with_one_of_a_checkpoint_left(dataset: xr.Dataset) -> xr.Dataset:
    """In some cells one checkpoint has a single member, as the stratified CRPS cannot take it."""
    first = np.flatnonzero(dataset.checkpoint.values == 0)
    dataset.z500.values[:, first[1:], :, :, :5] = np.nan
    return dataset


def test_members_in_blocks_score_like_all_at_once(verified, plain, tmp_path):
    found = scored(verified, tmp_path, members=MemberBlocks(128))
    later = {"lead_time": slice(1, None)}
    for name in ("crps", "crps_fair", "rmse", "bias", "mae", "spread_skill",
                 "spread_skill_area_mean", "spread_skill_unbiased_area_mean", "acc"):  # fmt: skip
        np.testing.assert_allclose(
            found.scores[name].isel(later), plain.scores[name].isel(later), rtol=1e-9, err_msg=name
        )
    assert "rank_histogram" not in found.scores
    estimator = found.scores.crps_estimator.sel(forecast="ensemble").item()
    assert estimator == "stratified, mean over blocks of 128 members"
    assert estimator in found.table()


def test_blocks_without_checkpoints_need_a_declaration(verified, tmp_path):
    bare = changed(verified, tmp_path / "f.zarr", lambda dataset: dataset.drop_vars("checkpoint"))
    with pytest.raises(InputError, match=r"no coordinate 'checkpoint'.*declare"):
        scored(verified, tmp_path / "a", bare, members=MemberBlocks(128))
    found = scored(verified, tmp_path / "b", bare, members=MemberBlocks(128, exchangeable=True))
    assert found.scores.crps_estimator.sel(forecast="ensemble").item().startswith("fair, mean")


def test_independent_members_are_headed_by_fair_and_pairs_by_stratified(verified, tmp_path):
    bare = changed(verified, tmp_path / "f.zarr", lambda dataset: dataset.drop_vars("checkpoint"))
    named = scored(verified, tmp_path / "a", bare).scores.crps_estimator
    assert named.sel(forecast="ensemble") == "fair"
    pairs = np.array([-1, 0, 0, 1, 1, 2, 2, 3, 3])
    paired = changed(
        verified,
        tmp_path / "p.zarr",
        lambda dataset: dataset.drop_vars("checkpoint").assign_coords(pair=("number", pairs)),
    )
    named = scored(verified, tmp_path / "b", paired).scores.crps_estimator
    assert named.sel(forecast="ensemble") == "stratified"


def test_a_checkpoint_with_one_member_leaves_fair_and_says_so(verified, tmp_path):
    lonely = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1])
    store = changed(
        verified,
        tmp_path / "f.zarr",
        lambda dataset: dataset.assign_coords(checkpoint=("number", lonely)),
    )
    scores = scored(verified, tmp_path / "a", store).scores
    assert scores.crps_estimator.sel(forecast="ensemble") == "fair"
    assert "takes all members as independent" in " ".join(scores.attrs["notes"])


def test_a_variable_that_cannot_be_scored_is_an_error(verified, tmp_path):
    def with_a_mean(dataset: xr.Dataset) -> xr.Dataset:
        return dataset.assign(t850=dataset.t850.mean("number", keep_attrs=True))

    store = changed(verified, tmp_path / "f.zarr", with_a_mean)
    with pytest.raises(InputError, match="t850 cannot be scored without the dimension number"):
        score(store, verified.truth, tmp_path / "out")
    assert scored(verified, tmp_path / "z500", store).scores.channel.values.tolist() == ["z500"]


def test_a_channel_without_truth_at_any_valid_time_is_an_error(verified, tmp_path):
    truth = xr.open_zarr(verified.truth, consolidated=False).load().drop_encoding()
    truth[["z500"]].to_zarr(tmp_path / "z.zarr", zarr_format=3, consolidated=False)
    late = truth[["t850"]].assign_coords(time=truth.time + np.timedelta64(3, "h"))
    late.to_zarr(tmp_path / "t.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(InputError, match="forecasts of t850 are valid"):
        score(verified.forecast, [tmp_path / "z.zarr", tmp_path / "t.zarr"], tmp_path / "out")


def test_the_command_line_has_them_all(verified, tmp_path):
    def run(*options: object):
        given = ("--forecast", verified.forecast, "--truth", verified.truth, *options)
        output = ("--output", tmp_path / "out")
        return CliRunner().invoke(main, ["score", *map(str, (*given, *output))])

    land = f"{mask_file(tmp_path)}:lsm"
    found = run("--channel", "z500", "--mask", land, "--member-blocks", 128)
    assert found.exit_code == 0, found.output
    assert "mean over blocks of 128 members" in found.output
    assert "t850" not in found.output
    assert run("--member-blocks", 100).exit_code == 2
    assert run("--exchangeable").exit_code == 2
    assert run("--mask", "nothing.nc:lsm").exit_code == 3
    refused = run("--member-blocks", 128, "--missing", "omit")
    assert (refused.exit_code, "omit needs all members" in refused.output) == (3, True)
