import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data.channel import channel
from data.errors import StoreError
from data.grid import Grid
from data.source import Source, open_source
from pipelines.families import FAMILIES
from pipelines.report.calibration import width_section
from pipelines.report.page import read_findings, write_report
from pipelines.report.sections import Findings, chosen_leads
from pipelines.score import ScoreSettings, score
from pipelines.summary import summary_text
from scoring.labels import plain

CHANNELS = ("u500", "z500", "t850")
FORECASTS = ("ensemble", "control", "climatology", "persistence")
ESTIMATORS = ("fair", "deterministic", "standard", "deterministic")
QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
LEVELS = (0.5, 0.8, 0.9, 0.95)
LEADS = np.arange(0, 41) * np.timedelta64(6, "h").astype("timedelta64[ns]")
INIT_TIMES = np.array(["2006-01-01T00", "2006-01-03T00"], "datetime64[ns]")
NAME = "storm <script>alert('x')</script> & co"


def scores() -> xr.Dataset:
    """Scores as `myriad score` lays them out, of one region, from error growth curves."""
    rng = np.random.default_rng(7)
    days = LEADS / np.timedelta64(1, "D")
    size = np.array([4.0, 900.0, 5.0])[:, None]
    growth = 1.1 / (1 + 18 * np.exp(-0.75 * days)) * size
    scale = np.array([0.55, 0.8, 0.0, 0.0])[:, None, None] * growth
    scale[2], scale[3] = 0.56 * size, 1.1 * size * (1 - np.exp(-0.9 * days))
    crps = scale * rng.uniform(0.97, 1.03, scale.shape)
    dims = ("forecast", "channel", "lead_time")
    ensemble_only = np.array([1, np.nan, np.nan, np.nan])[:, None, None]
    bins = 1 + rng.normal(0, 0.05, (4, 3, len(LEADS), 20))
    bins[..., [0, -1]] *= 1.4
    histogram = bins / bins.sum(-1, keepdims=True) * ensemble_only[..., None]
    coverage = np.array(LEVELS) * 0.93 * np.ones_like(crps)[..., None] * ensemble_only[..., None]
    return xr.Dataset(
        {
            "crps": (dims, crps),
            "rmse": (dims, crps * 1.7),
            "spread": (dims, crps * 1.5 * ensemble_only),
            "spread_skill": (dims, np.full_like(crps, 0.9) * ensemble_only),
            "spread_skill_unbiased": (dims, np.full_like(crps, 0.88) * ensemble_only),
            "rank_histogram": ((*dims, "bin"), histogram),
            "coverage": ((*dims, "level"), coverage),
            "cases": (dims, np.full(crps.shape, 2)),
        },
        {
            "forecast": list(FORECASTS),
            "crps_estimator": ("forecast", list(ESTIMATORS)),
            "channel": list(CHANNELS),
            "units": ("channel", [channel(name).units for name in CHANNELS]),
            "lead_time": LEADS,
            "level": list(LEVELS),
            "bin": (np.arange(20) + 0.5) / 20,
            "region": "globe",
        },
        {"members": 49, "weights": "area", "notes": ["Lead 0 was not scored: <b>no truth</b>."]},
    )


def coverage() -> xr.Dataset:
    before = scores().coverage.sel(forecast="ensemble", drop=True)
    stages = {"before": before, "after": before / 0.93}
    regions = xr.DataArray(["globe", "north"], dims="region", name="region")
    quantiles = xr.DataArray(QUANTILES, {"quantile": QUANTILES}, ("quantile",))
    dates = xr.DataArray(np.ones(2), {"init_time": INIT_TIMES}, ("init_time",))
    dataset = xr.Dataset(stages)
    for stage, covered in stages.items():
        dataset[f"width_{stage}"] = 2 * covered
        dataset[f"score_{stage}"] = 1 - covered.isel(level=0, drop=True) / 2
        dataset[f"region_{stage}"] = covered.expand_dims(region=regions.values)
        dataset[f"date_{stage}"] = covered.mean("lead_time") * dates
        dataset[f"below_{stage}"] = xr.ones_like(covered.isel(level=0, drop=True)) * quantiles
    return dataset


def forecast() -> xr.Dataset:
    """A small finished store in the layout of `myriad run`."""
    grid, leads = Grid("legendre-gauss", 16, 32), LEADS[::4]
    rng = np.random.default_rng(3)
    wave = np.cos(3 * np.deg2rad(grid.longitude)) * np.cos(np.deg2rad(grid.latitude))[:, None]
    shape = (len(INIT_TIMES), 5, len(leads), *grid.shape)
    fields = 54_000 + 3_000 * wave + 200 * rng.standard_normal(shape)
    dims = ("init_time", "number", "lead_time", "latitude", "longitude")
    return xr.Dataset(
        {"z500": (dims, fields.astype(np.float32), channel("z500").attributes)},
        {
            "init_time": INIT_TIMES,
            "number": np.arange(5),
            "lead_time": leads,
            "latitude": grid.latitude,
            "longitude": grid.longitude,
            "completed": (("init_time", "number"), np.ones((2, 5), bool)),
            "checkpoint": ("number", [0, 0, 0, 1, 1], {"flag_meanings": "sfno-a sfno-b"}),
            "perturbation": ("number", [0, 1, 1, 1, 1], {"flag_meanings": "control bred_vectors"}),
        },
        {
            "title": NAME,
            "fingerprint": "0123456789ab",
            "experiment": json.dumps({"name": NAME, "seed": 7, "members": 5}),
            "identity": json.dumps({"versions": {"torch": "2.14.1"}, "checkpoints": ["a1", "b2"]}),
        },
    )


def truth(folder: Path) -> Source:
    """A file that holds the first forecast's valid times."""
    field = forecast().z500.isel(init_time=0, number=0, drop=True)
    times = INIT_TIMES[0] + field.lead_time.values
    dataset = xr.Dataset({"z500": field.rename(lead_time="time").assign_coords(time=times)})
    dataset.latitude.attrs["units"] = "degrees_north"
    dataset.longitude.attrs["units"] = "degrees_east"
    dataset.to_netcdf(folder / "truth.nc")
    return open_source(folder / "truth.nc")


def by_date() -> xr.DataArray:
    crps = scores().crps.sel(forecast="ensemble")
    dates = xr.DataArray([0.8, 1.2], dims="init_time", coords={"init_time": INIT_TIMES})
    return crps * dates


def full() -> Findings:
    return Findings(scores(), coverage(), by_date())


class Page(HTMLParser):
    """What a browser would find: tags, attributes, text by tag, and the numbers of each section's
    table."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.tables: dict[str, dict[str, list[float]]] = {}
        self._open: list[str] = []
        self._section, self._channel = "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._open.append(tag)
        if tag == "section":
            self._section = attributes["id"]
        if tag == "tbody":
            self._channel = attributes["data-channel"]
        if tag == "data":
            numbers = self.tables.setdefault(self._section, {}).setdefault(self._channel, [])
            numbers.append(float(attributes["value"]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        tag = self._open[-1] if self._open else ""
        self.text[tag] = self.text.get(tag, "") + data

    @property
    def numbers(self):
        return self.tables["summary"]

    @property
    def sections(self):
        return {attributes["id"] for attributes in self.named("section")}

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A report with everything in it."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder / "report.html", full(), forecast(), truth(folder))


@pytest.fixture(scope="module")
def page(path):
    return Page(path)


def test_report_is_one_small_file_without_an_address(path, page):
    assert path.stat().st_size < 2_000_000
    assert "://" not in path.read_text(encoding="utf-8")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "base") or attributes.get("rel") == "icon"
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value[:80])
    assert "@import" not in page.text["style"]
    assert "url(" not in page.text["style"]


def test_name_of_the_experiment_stays_text(page):
    assert page.text["h1"] == NAME
    assert NAME in page.text["title"]
    assert "<b>no truth</b>" in page.text["p"]


def test_every_drawing_is_named_for_those_who_cannot_see_it(page):
    drawings = page.named("svg")
    names = [drawing["aria-label"] for drawing in drawings]
    assert len(drawings) == 6 * len(CHANNELS) + 4 + 1
    assert all(drawing["role"] == "img" for drawing in drawings)
    assert all(len(name) > 20 for name in names)
    assert len(set(names)) == len(names)


def test_no_id_is_given_twice_and_every_reference_has_its_target(path, page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    references = re.findall(r"url\(#([^)]*)\)", path.read_text(encoding="utf-8"))
    references += [use["href"].removeprefix("#") for use in page.named("use")]
    assert set(references) <= set(ids)


def test_numbers_in_the_table_are_those_of_the_scores(page):
    table, rows = scores(), chosen_leads(LEADS)
    for name in CHANNELS:
        chosen = table.sel(channel=name).isel(lead_time=rows)
        columns = [chosen.crps.sel(forecast=forecast) for forecast in
                   ("ensemble", "climatology", "control", "persistence")]  # fmt: skip
        columns.append(chosen.spread_skill.sel(forecast="ensemble"))
        for stage in ("before", "after"):
            columns.append(coverage()[stage].sel(channel=name, level=0.9).isel(lead_time=rows))
        expected = np.stack([column.values for column in columns], axis=1)
        np.testing.assert_array_equal(page.numbers[name], expected.ravel())


def test_best_rows_are_those_where_the_ensemble_beats_every_reference(page):
    crps = scores().crps.isel(lead_time=chosen_leads(LEADS))
    references = crps.drop_sel(forecast="ensemble").min("forecast")
    best = crps.sel(forecast="ensemble") < references
    rows = [row for row in page.named("tr") if row.get("class") == "best"]
    assert 0 < len(rows) == int(best.sum()) < best.size


def test_terminal_shows_the_numbers_of_the_page(page):
    lines = [line.split() for line in summary_text(full()).splitlines()]
    rows = [line[line.index("day") + 2 :] for line in lines if "day" in line]
    shown = [text.replace(",", "") for row in rows for text in row]
    printed = page.text["data"]
    assert len(rows) == len(CHANNELS) * len(chosen_leads(LEADS))
    assert "".join(shown) == printed.replace(",", "")


def test_terminal_names_families_and_shows_them_at_one_lead(with_families):
    findings = Findings(with_families)
    text = summary_text(findings)
    assert max(map(len, text.removesuffix("\n".join(findings.notes)).splitlines())) <= 100
    assert f"Families: {', '.join(FAMILIES)}." in text
    lead = chosen_leads(findings.lead_times, 3)[1]
    wis = findings.curve("wis", "ensemble", "z500")[lead]
    shown = text.split("More scores, day ")[1].split("z500, m² s⁻²")[1].splitlines()[0].split()
    assert any(float(one) == pytest.approx(wis, rel=0.01) for one in shown)
    assert "Events, day " in text
    assert "Single members, day " in text


def test_estimator_is_named(page):
    assert "ensemble, fair" in page.text["small"]
    assert "climatology, standard CRPS" in page.text["li"]


def test_missing_pieces_are_absent_and_not_failures(tmp_path):
    bare = scores()[["crps", "cases"]].sel(forecast=["ensemble"], channel=["t850"])
    page = Page(write_report(tmp_path / "report.html", Findings(bare)))
    assert page.text["p"].count("Absent") == 8
    assert len(page.named("svg")) == 1
    assert page.numbers["t850"] == list(bare.crps.isel(lead_time=chosen_leads(LEADS)).values.flat)


def test_forecast_of_one_member_is_reported_without_what_needs_members(tmp_path):
    single = Findings(scores().sel(forecast=["control", "persistence"], channel=["u500"]))
    page = Page(write_report(tmp_path / "report.html", single))
    assert page.text["p"].count("Absent") == 8
    assert len(page.numbers["u500"]) == 2 * len(chosen_leads(LEADS))


def test_variable_of_an_unknown_channel_and_hours_of_lead_can_be_reported(tmp_path):
    leads = np.array([12, 24, 36]) * np.timedelta64(1, "h").astype("timedelta64[ns]")
    short = scores().isel(channel=[2], lead_time=[2, 4, 6]).drop_vars("units")
    short = short.assign_coords(channel=["wind_speed_10m"], lead_time=leads, region="all")
    text = write_report(tmp_path / "report.html", Findings(short)).read_text(encoding="utf-8")
    assert "hour 36" in text
    assert "lead time (hours)" in text
    assert 'data-channel="wind_speed_10m"' in text


def test_report_depends_on_nothing_but_its_input(tmp_path):
    findings = Findings(scores().isel(channel=[0]))
    pages = [write_report(tmp_path / f"{i}.html", findings).read_text() for i in range(2)]
    assert pages[0] == pages[1]


def test_folder_at_the_target_is_an_error_and_stays(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(StoreError, match="is a folder"):
        write_report(tmp_path, Findings(scores().isel(channel=[0])))
    assert (tmp_path / "kept").exists()


OF_FAMILIES = {
    "decomposition": ("more-scores", ("crps_reliability", "crps_potential")),
    "energy": ("more-scores", ("energy_score",)),
    "events": ("events", (
        "brier", "miscalibration", "discrimination", "uncertainty", "reliability_frequency",
        "reliability_observed", "reliability_calibrated", "roc_area", "relative_economic_value",
    )),
    "extremes": ("more-scores", ("crps_above_90", "crps_below_10")),
    "indices": ("events", ("efi", "efi_ecmwf", "shift_of_tails")),
    "gaussian": ("more-scores", ("crps_gaussian",)),
    "intervals": ("more-scores", ("quantile_score", "interval_score", "wis")),
    "members": ("members", ("expected_outlier", "best_member_error", "gain")),
    "spectra": ("spectra", (
        "power_members", "power_mean", "power_truth", "power_ratio_members", "power_ratio_mean",
        "spectral_spread_skill",
    )),
}  # fmt: skip
SECTIONS = {section for section, _ in OF_FAMILIES.values()}


@pytest.fixture(scope="module")
def with_families(verified, tmp_path_factory) -> xr.Dataset:
    """What `myriad score` writes of one region with every family."""
    folder = tmp_path_factory.mktemp("families")
    store = xr.open_zarr(verified.forecast, consolidated=False).load().drop_encoding()
    whole = store.isel(init_time=np.flatnonzero(store.completed.all("number")))
    whole.to_zarr(folder / "forecast.zarr", zarr_format=3, consolidated=False)
    settings = ScoreSettings(families=tuple(FAMILIES))
    score(folder / "forecast.zarr", verified.truth, folder, verified.climatology, settings=settings)
    return read_findings(folder).scores


def only(scores: xr.Dataset, names: tuple[str, ...]) -> xr.Dataset:
    """These scores of families beside the usual ones."""
    others = {name for _, added in OF_FAMILIES.values() for name in added} - set(names)
    kept = scores.drop_vars(others)
    return kept.drop_dims(set(kept.dims) - {dim for name in kept for dim in kept[name].dims})


def page_of(scores: xr.Dataset, folder: Path) -> Page:
    return Page(write_report(folder / "report.html", Findings(scores)))


def test_every_family_has_its_place(with_families, tmp_path):
    assert {name for _, added in OF_FAMILIES.values() for name in added} < set(with_families)
    page, channels = page_of(with_families, tmp_path), len(with_families.channel)
    assert page.sections > SECTIONS
    names = [drawing["aria-label"] for drawing in page.named("svg")]
    # Reliability, economic value, power, spread-skill by degree, outliers by size.
    for beginning in (
        "Reliability of",
        "Relative economic",
        "power /",
        "spread-skill by",
        "outliers",
    ):
        assert sum(name.startswith(beginning) for name in names) == channels, beginning
    assert len(set(names)) == len(names)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_tables_of_families_hold_the_scores(with_families, tmp_path):
    page = page_of(with_families, tmp_path)
    for name in with_families.channel.values:
        here = with_families.sel(forecast="ensemble", channel=name)
        here = here.isel(lead_time=chosen_leads(here.lead_time.values))
        upper = here.sel(climate_quantile=0.9)
        above, below = (plain(here[name]).squeeze() for name in ("crps_above_90", "crps_below_10"))
        eight = here.sel(size=8)
        for section, columns in {
            "more-scores": (here.crps, here.crps_reliability, here.crps_potential,
                            here.crps_gaussian, above, below,
                            here.wis, here.energy_score),
            "events": (upper.brier, upper.miscalibration, upper.discrimination, upper.uncertainty,
                       upper.roc_area, here.efi, here.shift_of_tails),
            "members": (here.best_member_error.sel(size=2), eight.best_member_error,
                        eight.expected_outlier, here.gain),
        }.items():  # fmt: skip
            expected = np.stack([column.values for column in columns], axis=1)
            found = page.tables[section][name]
            np.testing.assert_array_equal(found, expected.ravel(), err_msg=section)


@pytest.mark.parametrize("family", OF_FAMILIES)
def test_a_family_alone_brings_its_section_alone(with_families, family, tmp_path):
    section, names = OF_FAMILIES[family]
    page = page_of(only(with_families, names).isel(channel=[0]), tmp_path)
    assert page.sections & SECTIONS == {section}


def test_without_families_there_is_nothing_of_them(with_families, tmp_path):
    page = page_of(only(with_families, ()).isel(channel=[0]), tmp_path)
    assert not page.sections & SECTIONS
    assert set(page.tables) == {"summary"}


def test_scores_that_a_region_has_not_are_left_out(with_families, tmp_path):
    spectra = OF_FAMILIES["spectra"][1]
    missing = with_families[list(spectra)] * np.nan
    page = page_of(with_families.assign(missing).isel(channel=[0]), tmp_path)
    assert page.sections & SECTIONS == SECTIONS - {"spectra"}


def test_what_families_say_of_themselves_stays_text(with_families, tmp_path):
    marked = with_families.isel(channel=[0]).assign_coords(channel=["<b>x</b>"])
    marked.gain.attrs["estimator"] = "<i>null</i>"
    marked.crps_estimator.values[:] = "<u>fair</u>"
    page = page_of(marked, tmp_path)
    assert "<i>null</i>" in page.text["p"]
    assert "<u>fair</u>" in page.text["small"]
    assert "<b>x</b>" in page.text["b"]
    assert not page.named("u")


@pytest.mark.slow
def test_browser_shows_it_without_an_error(path, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={tmp_path / 'page.png'}", "--window-size=1200,3000", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in done.stderr
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_change_of_the_score_is_said_with_its_sign(tmp_path):
    findings = full()
    better = findings.coverage.assign(score_after=0.9 * findings.coverage.score_before)
    text = width_section(replace(findings, coverage=better)).text
    assert "lower is better. Calibration changes it, on average over leads, by: " in text
    assert text.endswith(", ".join(f"{name} -10.0 %" for name in CHANNELS) + ".")


def test_of_channels_that_were_not_calibrated_nothing_is_said_of_calibration(tmp_path):
    some = replace(full(), coverage=coverage().sel(channel=["t850"]))
    page = Page(write_report(tmp_path / "report.html", some, forecast()))
    raw, calibrated = page.numbers["z500"], page.numbers["t850"]
    columns = len(calibrated) // len(chosen_leads(LEADS))
    assert len(raw) // len(chosen_leads(LEADS)) == columns - 2
    assert width_section(some).text.count(" %,") == 0
    assert [panel.heading for panel in width_section(some).panels] == ["t850"]
