"""Families of scores of `myriad score`, against the library on the same fields."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from data.errors import InputError, StoreError
from data.grid import Grid
from data.sphere import Sphere
from pipelines import score_options
from pipelines.cli import main
from pipelines.families import FAMILIES, Additions, Ensemble
from pipelines.labels import open_labelled
from pipelines.members import MemberBlocks
from pipelines.score import ScoreSettings, families_in, score
from pipelines.score_table import ScoreResult
from pipelines.verification import open_verification
from scoring import Band, EnergyScore, Gain, Mask, WeightedIntervalScore, evaluate
from scoring.gaussian import GaussianCRPS
from scoring.labels import plain
from scoring.spectra import Spectrum, angular_spectra
from scoring.statistic import OMIT
from scoring.sums import Sums
from tests.pipelines.test_labels import contents

GRID = Grid("legendre-gauss", 8, 16)
ENSEMBLE = {"forecast": "ensemble", "channel": "z500", "region": "globe"}
LEAD = 2
OF_FAMILIES = {
    "decomposition": ("crps_reliability", "crps_potential"),
    "energy": ("energy_score",),
    "events": (
        "brier", "miscalibration", "discrimination", "uncertainty", "reliability_observed",
        "reliability_calibrated", "reliability_frequency", "roc_area", "relative_economic_value",
    ),
    "extremes": ("crps_above_90", "crps_below_10", "efi", "efi_ecmwf", "shift_of_tails"),
    "gaussian": ("crps_gaussian",),
    "intervals": ("quantile_score", "interval_score", "wis"),
    "members": ("expected_outlier", "best_member_error", "gain"),
    "spectra": (
        "power_members", "power_mean", "power_truth", "power_ratio_members", "power_ratio_mean",
        "spectral_spread_skill",
    ),
}  # fmt: skip
# Of all cells, and yet not by area.
MASK = xr.DataArray(np.linspace(0.1, 1, 128).reshape(GRID.shape), dims=("latitude", "longitude"))
# One init time lacks a member.
UNEVEN = tuple(name for name in FAMILIES if name != "decomposition")


def scored(verified, output, families, climatology=True, **settings) -> ScoreResult:
    chosen = ScoreSettings(channels=("z500",), families=families, **settings)
    climate = verified.climatology if climatology else None
    return score(verified.forecast, verified.truth, output, climate, settings=chosen)


@pytest.fixture(scope="module")
def everything(verified, tmp_path_factory) -> ScoreResult:
    return scored(verified, tmp_path_factory.mktemp("families"), UNEVEN)


@pytest.fixture(scope="module")
def fields(verified) -> tuple[xr.DataArray, xr.DataArray]:
    """Members and truth at one lead and whole init times, (init_time, [number,] *cells)."""
    forecast = xr.open_zarr(verified.forecast, consolidated=False, decode_timedelta=True)
    whole = np.flatnonzero(forecast.completed.all("number"))
    members = forecast.z500.isel(lead_time=LEAD, init_time=whole).load().reset_coords(drop=True)
    times = members.init_time + forecast.lead_time[LEAD]
    truth = xr.open_zarr(verified.truth, consolidated=False).z500.sel(time=times.values).load()
    return members, members.isel(number=0).copy(data=truth.values)


def of_dates(result: ScoreResult, key: str, members: xr.DataArray) -> xr.DataArray:
    """The mean of a statistic at each init time of these members."""
    means = result.sums.mean(key, over=()).sel(ENSEMBLE).isel(lead_time=LEAD)
    return means.sel(init_time=members.init_time)


def test_every_family_writes_its_scores(everything):
    stored = open_labelled(everything.output / "scores.zarr")
    table = pd.read_csv(everything.output / "scores.csv")
    for name in UNEVEN:
        for variable in OF_FAMILIES[name]:
            values = stored[variable].sel(ENSEMBLE).isel(lead_time=LEAD)
            assert np.isfinite(values).any(), variable
            assert stored[variable].attrs["estimator"]
            curve = {"degree", "probability", "cost_loss_ratio"} & set(values.dims)
            assert table.score.str.startswith(variable).any() == (not curve), variable
    assert set(OF_FAMILIES) == set(FAMILIES)


def test_usual_scores_stay_as_they_are(verified, everything, tmp_path):
    usual = scored(verified, tmp_path, ()).scores
    xr.testing.assert_equal(everything.scores[list(usual.data_vars)], usual.drop_attrs(deep=False))


def test_scores_of_cells_are_those_of_the_library(everything, fields):
    members, truth = fields
    statistics = WeightedIntervalScore(), Gain(), GaussianCRPS()
    found = evaluate(statistics, members, truth)
    mean = (found * GRID.area_weights).sum(("latitude", "longitude"))
    for key in mean:
        np.testing.assert_allclose(of_dates(everything, key, members), mean[key], rtol=1e-6)


def test_scores_of_fields_are_those_of_the_library(everything, fields):
    members, truth = fields
    weights = xr.DataArray(GRID.area_weights, dims=("latitude", "longitude"))
    energy = EnergyScore(("latitude", "longitude"))(members, truth, weights=weights)
    found = of_dates(everything, EnergyScore(("cell",)).key, members)
    np.testing.assert_allclose(found, energy, rtol=1e-6)
    key = Spectrum("members", Sphere(GRID).truncation).key
    spectra = angular_spectra(members, truth, Sphere(GRID))[key]
    np.testing.assert_allclose(of_dates(everything, key, members), spectra, rtol=1e-4)
    tropics = everything.scores.power_members.sel(ENSEMBLE | {"region": "tropics"})
    assert np.isnan(tropics).all()  # a spectrum is of the whole globe


def test_spectra_are_those_of_regions_that_are_the_whole_globe(verified, tmp_path):
    regions = {"earth": Band(-90, 90), "land": Mask(MASK.values), "north": Band(0, 90)}
    found = scored(verified, tmp_path, ("spectra",), regions=regions).scores.power_members
    ensemble = found.sel(forecast="ensemble").isel(lead_time=LEAD)
    assert np.isfinite(ensemble.sel(region="earth")).all()
    assert np.isnan(ensemble.sel(region=["land", "north"])).all()


def test_a_score_has_no_labels_but_its_own(everything):
    upper = {"climate_quantile": 0.9}
    stored = xr.open_zarr(everything.output / "scores.zarr")
    for scores in (everything.scores, stored):
        assert scores.brier.climate_quantile.values.tolist() == [0.1, 0.5, 0.9]
        for name, level in (("crps_above_90", 0.9), ("crps_below_10", 0.1)):
            own = plain(scores[name])
            assert own.climate_quantile.values.tolist() == [level]
            assert own.sel(forecast="ensemble").notnull().all()
        assert plain(scores.brier).sel(upper).dims == scores.crps.dims
    table = pd.read_csv(everything.output / "scores.csv")
    assert (table.score == "crps_above_90_0.9").any()
    assert not (table.score == "crps_above_90_0.1").any()
    loaded = Sums.load(everything.output / "sums.zarr")
    for found, expected in (
        (loaded.totals, everything.sums.totals), (loaded.weights, everything.sums.weights)
    ):  # fmt: skip
        for key in everything.sums.keys:
            xr.testing.assert_identical(found[key].rename(None), expected[key].rename(None))


def test_identities_hold(everything):
    here = everything.scores.sel(ENSEMBLE).isel(lead_time=slice(1, None))
    np.testing.assert_allclose(here.reliability_frequency.sum("probability"), 1.0)
    np.testing.assert_allclose(here.efi, here.efi_ecmwf, atol=0.05)
    assert (here.relative_economic_value > -1e-9).all()


def test_reliability_and_potential_are_the_crps(verified, tmp_path):
    store = xr.open_zarr(verified.forecast, consolidated=False).load().drop_encoding()
    whole = store.isel(init_time=np.flatnonzero(store.completed.all("number")))
    whole.to_zarr(tmp_path / "f.zarr", zarr_format=3, consolidated=False)
    chosen = ScoreSettings(channels=("z500",), families=("decomposition",))
    found = score(tmp_path / "f.zarr", verified.truth, tmp_path / "out", settings=chosen).scores
    here = found.sel(ENSEMBLE).isel(lead_time=slice(1, None))
    total = here.crps_reliability + here.crps_potential
    np.testing.assert_allclose(total, here.crps_standard, rtol=1e-6)


def test_missing_members_can_be_left_out_of_families_too(verified, everything, tmp_path):
    families = tuple(name for name in UNEVEN if name not in ("energy", "spectra"))
    found = scored(verified, tmp_path, families, missing=OMIT).scores
    for name in ("brier", "wis", "roc_area", "efi"):
        np.testing.assert_allclose(found[name], everything.scores[name], err_msg=name)


def test_a_score_does_not_depend_on_what_else_was_asked_for(verified, tmp_path):
    store = xr.open_zarr(verified.forecast, consolidated=False).load().drop_encoding()
    store = store.isel(init_time=np.flatnonzero(store.completed.all("number")))
    store.z500[:2, 4, :, :5] = np.nan
    store.z500[1, 2, LEAD, 0, 0] = np.nan  # two members there
    store.to_zarr(tmp_path / "gap.zarr", zarr_format=3, consolidated=False)

    def of(*families: str) -> ScoreResult:
        chosen = ScoreSettings(channels=("z500",), families=families, missing=OMIT)
        output = tmp_path / "-".join(families)
        return score(
            tmp_path / "gap.zarr", verified.truth, output, verified.climatology, settings=chosen
        )

    families = ("events", "members", "decomposition", "spectra")
    found = of(*families)
    for name in families:
        alone = of(name).sums
        for key in alone.keys:
            xr.testing.assert_identical(found.sums.totals[key], alone.totals[key])
            xr.testing.assert_identical(found.sums.weights[key], alone.weights[key])
    for name in ("members", "mean"):  # a ratio is of the same fields
        powers = [Spectrum(part, Sphere(GRID).truncation).key for part in (name, "truth")]
        xr.testing.assert_equal(*(found.sums.weights[key] for key in powers))


def test_names_of_sums_do_not_depend_on_the_channels_chosen(verified, everything, tmp_path):
    chosen = ScoreSettings(families=("events",))
    both = score(
        verified.forecast, verified.truth, tmp_path, verified.climatology, settings=chosen
    ).sums
    assert set(both.keys) <= set(everything.sums.keys)
    found, expected = (sums.sel({"channel": "z500"}) for sums in (both, everything.sums))
    for key in both.keys:
        xr.testing.assert_allclose(found.totals[key], expected.totals[key])


def test_a_field_with_a_gap_is_left_out_of_its_mean_or_makes_it_missing(verified, tmp_path):
    store = xr.open_zarr(verified.forecast, consolidated=False).load().drop_encoding()
    store.z500[2, 4, LEAD, 3, 5] = np.nan
    store.to_zarr(tmp_path / "gap.zarr", zarr_format=3, consolidated=False)
    chosen = ("energy", "spectra")
    found, whole = (
        score(
            path, verified.truth, tmp_path / path.stem,
            settings=ScoreSettings(channels=("z500",), families=chosen, missing=OMIT),
        )
        for path in (tmp_path / "gap.zarr", verified.forecast)
    )  # fmt: skip
    propagated = score(
        tmp_path / "gap.zarr", verified.truth, tmp_path / "none",
        settings=ScoreSettings(channels=("z500",), families=chosen),
    )  # fmt: skip
    for key in (EnergyScore(("cell",)).key, Spectrum("mean", Sphere(GRID).truncation).key):
        by_date = whole.sums.mean(key, over=()).sel(ENSEMBLE).isel(lead_time=LEAD)
        expected = np.delete(by_date.values, 2, axis=0).mean(axis=0)
        mean = found.sums.mean(key).sel(ENSEMBLE).isel(lead_time=LEAD)
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
        assert np.isnan(propagated.sums.mean(key).sel(ENSEMBLE).isel(lead_time=LEAD)).all()
    assert not [name for name in whole.scores if str(name).startswith("cases_")]
    usual = whole.scores.cases
    xr.testing.assert_equal(found.scores.cases, usual)
    table = pd.read_csv(tmp_path / "gap" / "scores.csv").query("forecast == 'ensemble'")
    hit = found.scores.region.isin(["globe", "tropics"])  # which have the gap
    fewer = usual.sel(forecast="ensemble") - (hit & (usual.lead_time == usual.lead_time[LEAD]))
    own = found.scores.cases_energy_score.sel(forecast="ensemble")
    np.testing.assert_array_equal(own, fewer.transpose(*own.dims))
    for name, region, expected in (
        ("energy_score", "globe", own.sel(region="globe")),
        ("energy_score", "northern_extratropics", usual.sel(forecast="ensemble")),
        ("rmse", "globe", usual.sel(forecast="ensemble")),
    ):
        rows = table[(table.score == name) & (table.region == region)].sort_values("lead_hours")
        assert rows.cases.tolist() == expected.sel(channel="z500").values[-len(rows) :].tolist()


def test_what_cannot_be_had_is_refused_before_anything_is_written(verified, tmp_path):
    for families, settings, message in (
        (("evnts",), {}, "no family 'evnts', expected decomposition, energy"),
        (
            ("events",),
            {"climatology": False},
            "'events' needs a climatology, and none was given",
        ),
        (("decomposition",), {}, "as many members at every init time, found 8 to 9"),
        (("gaussian",), {"members": MemberBlocks(128)}, "'gaussian' needs all members at once"),
        (("spectra",), {"mask": MASK}, "'spectra' is of the whole globe: score it without the mas"),
    ):
        with pytest.raises(InputError, match=message):
            scored(verified, tmp_path / "out", families, **settings)
    assert not (tmp_path / "out").exists()


def test_a_fuller_result_is_not_replaced_by_less(verified, tmp_path):
    settings = ScoreSettings(channels=("z500",), families=("intervals",))
    score(verified.forecast, verified.truth, tmp_path, settings=settings)
    before = contents(tmp_path)
    for less, lost in (
        (ScoreSettings(channels=("z500",), families=("members",)), "--family intervals"),
        (ScoreSettings(channels=("t850",)), "--channel z500 --family intervals"),
    ):
        with pytest.raises(StoreError, match=rf"lost, nothing was changed; .*\({lost}\)"):
            score(verified.forecast, verified.truth, tmp_path, settings=less)
        assert contents(tmp_path) == before
    both = replace(settings, families=("members", "intervals"))
    score(verified.forecast, verified.truth, tmp_path, settings=both)
    assert families_in(tmp_path) == ("members", "intervals")


def test_references_and_ranks_are_not_lost_unasked(verified, tmp_path):
    settings = ScoreSettings(channels=("z500",))
    later = xr.open_zarr(verified.forecast, consolidated=False).load().drop_encoding()
    later.isel(lead_time=slice(1, None)).to_zarr(
        tmp_path / "later.zarr", zarr_format=3, consolidated=False
    )
    out = tmp_path / "out"
    score(verified.forecast, verified.truth, out, verified.climatology, settings=settings)
    before = contents(out)
    blocks = replace(settings, members=MemberBlocks(128, exchangeable=True))
    for path, climatology, chosen, lost in (
        (verified.forecast, None, settings, "--climatology FILE"),
        (tmp_path / "later.zarr", verified.climatology, settings, "--analysis FILE"),
        (verified.forecast, verified.climatology, blocks, "all members at once"),
    ):
        with pytest.raises(StoreError, match=rf"lost, nothing was changed; .*\({lost}\)"):
            score(path, verified.truth, out, climatology, settings=chosen)
        assert contents(out) == before
    score(
        tmp_path / "later.zarr", verified.truth, out, verified.climatology, verified.truth, settings
    )


def test_an_unknown_family_is_a_wrong_command_line_before_anything_is_read(tmp_path):
    given = ("--forecast", "nowhere", "--truth", "nowhere", "--output", tmp_path / "out")
    found = CliRunner().invoke(main, ["score", *map(str, given), "--family", "event"])
    assert found.exit_code == 2
    assert "'event' is not one of 'decomposition'" in found.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_line_names_them_all(verified, tmp_path):
    assert set(score_options.FAMILIES) == set(FAMILIES)
    shown = CliRunner().invoke(main, ["score", "--help"]).output
    assert all(name in shown for name in FAMILIES)
    given = ("--forecast", verified.forecast, "--truth", verified.truth, "--output", tmp_path)
    options = ("--channel", "z500", "--family", "intervals", "--family", "members")
    found = CliRunner().invoke(main, ["score", *map(str, (*given, *options))])
    assert found.exit_code == 0, found.output
    assert "wis" in set(pd.read_csv(tmp_path / "scores.csv").score)


@pytest.mark.parametrize("seasonal", [True, False])
def test_climate_quantiles_are_those_of_numpy(seasonal):
    ensemble = Ensemble(20, 20, "climatology", GRID)
    additions = Additions.of(("extremes", "events"), ensemble)
    values = np.random.default_rng(4).integers(0, 30, (3 if seasonal else 1, 13, 2, 5))
    climate = np.broadcast_to(values.astype(np.float32), (3, 13, 2, 5))
    found = additions.references(climate)
    assert len(found) >= 4
    for reference, quantiles in found.items():
        expected = np.quantile(climate, reference.levels, axis=1, method="hazen")
        np.testing.assert_allclose(quantiles, np.moveaxis(expected, 0, -1), rtol=1e-6)


def test_climate_quantiles_that_are_values_equal_them_and_gaps_stay():
    ascending = np.sort(np.random.default_rng(1).normal(280, 9, (1, 50, 900)).astype(np.float32), 1)
    levels = Additions.of(("extremes",), Ensemble(20, 20, "climatology", GRID))
    ascending[0, 7, 3] = np.nan
    for reference, quantiles in levels.references(ascending).items():
        position = np.round(np.array(reference.levels) * 50 - 0.5, 6)
        for place, at in enumerate(position):
            if at == np.floor(at) and 0 <= at < 50:
                expected = np.where(np.arange(900) == 3, np.nan, ascending[0, int(at)])
                np.testing.assert_array_equal(quantiles[0, :, place], expected)
        assert np.isnan(quantiles[0, 3]).all()


def test_whole_fields_come_as_many_leads_at_a_time_as_fit(verified):
    pair = open_verification(verified.forecast, verified.truth)
    name = pair.channels[0]
    blocks = {memory: list(pair.fields(name, memory)) for memory in (1, 2**30)}
    one, all_at_once = blocks.values()
    assert {block.leads.size for block in one} == {1}
    assert len(all_at_once) < len(one)
    joined = [np.concatenate([b.leads for b in some if b.init == 0]) for some in (one, all_at_once)]
    np.testing.assert_array_equal(*joined)
