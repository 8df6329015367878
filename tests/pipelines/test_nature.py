"""A nature run in small: layout, twins, and that an interrupted run gives the same bytes."""

import json
from concurrent.futures import Executor, Future
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import xarray as xr

from data.errors import ConfigurationError, StoreError
from forecast.held_suarez import OUTPUT_CHANNELS
from pipelines import nature
from pipelines.nature import NatureSettings, Unit, run_nature
from pipelines.nature_store import PER_DAY

pytestmark = pytest.mark.skipif(find_spec("dinosaur") is None, reason="needs the extra 'physics'")
SMALL = NatureSettings(
    years=2 / 365, segments=2, evaluation_days=2, twin_spinup_days=1, truncation=21,
    coarse_spinup_days=4, fine_spinup_days=0, chunk_days=1, gain=0.5,
)  # fmt: skip


class HereAndNow(Executor):
    """Runs what is submitted at once, in this process; dies before the unit it is told to."""

    def __init__(self, fatal: Unit | None = None) -> None:
        self.fatal = fatal
        self.done = []

    def submit(self, function, *arguments):
        future, unit = Future(), arguments[-1]
        if unit == self.fatal:
            raise KeyboardInterrupt
        future.set_result(function(*arguments))
        self.done.append(unit)
        return future


@pytest.fixture
def in_process(monkeypatch):
    """Makes `run_nature` use an executor of this process."""

    def use(executor):
        monkeypatch.setattr(nature, "ProcessPoolExecutor", lambda *_: executor)
        return executor

    return use


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run done in one go."""
    directory = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nature, "ProcessPoolExecutor", lambda *_: HereAndNow())
        run_nature(directory, SMALL, workers=1)
    return directory


def files(directory):
    """Contents of all files below, by relative path."""
    paths = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory): path.read_bytes() for path in paths}


def test_stores_open_without_options_and_are_whole(whole):
    truth = xr.open_zarr(whole / "truth.zarr")
    assert dict(truth.sizes) == {"time": 24, "latitude": 32, "longitude": 64}
    assert list(truth.data_vars) == [*OUTPUT_CHANNELS, "surface_geopotential"]
    assert truth.z500.dtype == np.float32
    assert truth.z500.attrs["units"] == "m2 s-2"
    assert np.all(np.diff(truth.latitude) < 0)
    assert truth.subset.values[:12].tolist() == [0] * 4 + [1] * 8
    assert truth.segment.values[::12].tolist() == [0, 1]
    assert all(np.isfinite(truth[name]).all() for name in truth.data_vars)
    assert json.loads(truth.attrs["settings"])["seed"] == SMALL.seed


def test_segments_never_look_consecutive(whole):
    time = xr.open_zarr(whole / "truth.zarr").time.values
    steps = np.diff(time) / np.timedelta64(1, "h")
    assert np.count_nonzero(steps != 6) == 1
    assert steps.max() > 10 * 24


def test_analyses_are_nearer_to_the_truth_than_another_segment_is(whole):
    analysis = xr.open_zarr(whole / "analysis.zarr")
    truth = xr.open_zarr(whole / "truth.zarr").sel(time=analysis.time)
    assert analysis.sizes["time"] == 2 * PER_DAY
    assert (analysis.subset == 1).all()
    error = np.sqrt(((analysis.u500 - truth.u500) ** 2).mean())
    first, second = (truth.u500.values[truth.segment == index] for index in (0, 1))
    assert 0 < error < 0.2 * np.sqrt(((first - second) ** 2).mean())


def test_native_fields_are_those_the_outputs_come_from(whole):
    from forecast.held_suarez import T21
    from forecast.primitive_equations import spectral_core

    truth = xr.open_zarr(whole / "truth.zarr")
    native = xr.open_zarr(whole / "native.zarr" / "truth")
    assert (native.time.dt.hour == 0).all()
    core = spectral_core(T21)
    fields = np.stack([native[name].values[1] for name in T21.channels])[None]
    levels = core.pressure_levels(core.coefficients(fields))[0]
    expected = truth.sel(time=native.time[1])
    np.testing.assert_allclose(levels[3], expected.u500, atol=0.02)
    np.testing.assert_allclose(levels[6], expected.z500, atol=1.0)


def test_an_interrupted_run_equals_an_uninterrupted_one(whole, tmp_path, in_process):
    in_process(HereAndNow(fatal=Unit(1, 0)))
    with pytest.raises(KeyboardInterrupt):
        run_nature(tmp_path, SMALL, workers=1)
    # A unit killed after writing but before its marker is done again.
    Unit(0, 0).state_path(tmp_path).unlink()
    executor = in_process(HereAndNow())
    run_nature(tmp_path, SMALL, workers=2)
    assert Unit(0, -1) not in executor.done
    assert Unit(0, 0) in executor.done
    assert files(tmp_path) == files(whole)


def test_a_finished_run_has_nothing_left_to_do(whole, in_process):
    executor = in_process(HereAndNow())
    run_nature(whole, SMALL, workers=1)
    assert executor.done == []


def test_a_directory_of_other_settings_is_refused(whole, in_process):
    executor = in_process(HereAndNow())
    with pytest.raises(StoreError, match="other settings"):
        run_nature(whole, replace(SMALL, seed=1), workers=1)
    assert executor.done == []


def test_settings_that_cannot_be_laid_out_are_refused():
    with pytest.raises(ConfigurationError, match="multiples of chunk_days 10"):
        NatureSettings(evaluation_days=25)
    with pytest.raises(ConfigurationError, match="at least 2"):
        NatureSettings(segments=1)


@pytest.mark.slow
def test_processes_give_the_same_bytes_as_one(whole, tmp_path):
    run_nature(tmp_path, SMALL, workers=2)
    assert files(tmp_path).keys() == files(whole).keys()
    truths = [xr.open_zarr(path / "truth.zarr").load() for path in (tmp_path, whole)]
    xr.testing.assert_identical(*truths)


def test_the_work_of_five_years_is_what_was_promised():
    settings = NatureSettings()
    assert settings.training_chunks * 10 * settings.segments >= 5 * 365
    assert settings.chunks - settings.first_analysed_chunk == 4
