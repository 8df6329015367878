import numpy as np
import pytest
import xarray as xr

from data.errors import InputError, StoreError
from scoring.calibration.adaptive import AdaptiveConformal
from scoring.calibration.conformal import ONE_SIDED, ConformalCalibration
from scoring.calibration.online import OnlineCalibration, calibrate_online
from scoring.calibration.tracking import QuantileTracking
from scoring.dates import Recent

DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")
LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
NORMAL = np.array([-1.645, -0.674, 0.0, 0.674, 1.645])
METHODS = [
    QuantileTracking(0.2),
    QuantileTracking(0.1, 0.5),
    AdaptiveConformal(0.1),
    AdaptiveConformal(0.1, Recent(30 * DAY)),
]
named = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def archive(truth: np.ndarray, leads: int = 1):
    """Quantiles of a standard Gaussian, (init_time, lead_time, cell, quantile), and the truth."""
    dates, cells = truth.shape[0], truth.shape[-1]
    at = {
        "init_time": np.datetime64("2006-01-01", "ns") + np.arange(dates) * DAY,
        "lead_time": np.arange(1, leads + 1) * DAY,
        "cell": np.arange(cells),
    }
    dims = ("init_time", "lead_time", "cell")
    quantiles = np.broadcast_to(NORMAL, (dates, leads, cells, 5)).copy()
    return (
        xr.DataArray(quantiles, at | {"quantile": LEVELS}, (*dims, "quantile")),
        xr.DataArray(truth.reshape(dates, leads, cells), at, dims),
    )


def noise(dates: int, leads: int = 1, cells: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((dates, leads, cells))


def split(quantiles, truth, start: int):
    first, rest = {"init_time": slice(0, start)}, {"init_time": slice(start, None)}
    return (quantiles.isel(first), truth.isel(first)), (quantiles.isel(rest), truth.isel(rest))


def below(issued, truth):
    """Share of truths not above each issued level."""
    return (truth <= issued).mean(("init_time", "lead_time", "cell"))


def adversaries(dates: int) -> np.ndarray:
    """A drift, jumps, growth and extremes, (date, lead, series)."""
    time = np.arange(dates)
    series = [
        0.02 * time,
        np.where(time % 120 < 60, -3.0, 3.0),
        np.random.default_rng(1).standard_normal(dates) * np.exp(0.01 * time),
        np.where(time % 2, -50.0, 50.0),
    ]
    return np.stack(series, axis=1)[:, None]


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9])
def test_adaptive_conformal_keeps_its_bound_on_adversarial_series(level):
    """Gibbs and Candes (2021), proposition 4.1, for every lead by its delay."""
    method, leads = AdaptiveConformal(0.2), 3
    whole = archive(np.repeat(adversaries(140), leads, axis=1), leads)
    quantiles = whole[0].sel(quantile=[level], method="nearest").assign_coords(quantile=[level])
    past, new = split(quantiles, whole[1], 60)
    issued, _ = calibrate_online(OnlineCalibration.start(method, *past), *new)
    hits = (new[1] <= issued).isel(quantile=0).values
    for lead in range(leads):
        # A case of lead h is learned from h dates after it was issued; the last are never.
        learned = hits[: 80 - lead - 1, lead]
        worst = max(level, 1 - level) + (lead + 1) * method.rate
        deficit = np.abs(learned.mean(axis=0) - level)
        assert (deficit <= worst / (method.rate * len(learned))).all()


def test_an_adversary_beats_what_does_not_learn():
    past, new = split(*archive(adversaries(140)), 60)
    fixed = ConformalCalibration.fit(*past, ("init_time",), conformity=ONE_SIDED)
    issued, _ = calibrate_online(OnlineCalibration.start(AdaptiveConformal(0.2), *past), *new)
    errors = [
        np.abs((new[1] <= q).mean(("init_time", "lead_time")) - LEVELS).max("quantile").values
        for q in (fixed.apply(new[0]), issued)
    ]
    # Extremes that alternate are half above the median already.
    assert (errors[1] <= errors[0] + 0.02).all()
    assert (errors[1][:3] < 0.15).all()


def test_levels_learn_together_and_do_not_cross():
    for method in METHODS:
        past, new = split(*archive(adversaries(140)), 60)
        issued, _ = calibrate_online(OnlineCalibration.start(method, *past), *new)
        ordered = issued.values
        assert (ordered[..., 1:] >= ordered[..., :-1]).all()


def test_quantile_tracking_telescopes_to_its_long_run_error():
    """The mean deficit is (theta_T - theta_0) / (rate T) where the size does not change."""
    method = QuantileTracking(0.05, memory=1)
    truth = np.where(noise(160) > 0.3, 2.0, -2.0)  # |truth - median| is always 2
    past, new = split(*archive(truth), 60)
    start = OnlineCalibration.start(method, *past)
    tracked, issued = start, []
    for index in range(100):
        place = {"init_time": index}
        # Unsorted: each level is its own controller.
        shifted = new[0].isel(place) + tracked.state["theta"]
        issued.append(shifted)
        tracked = tracked.update(new[0].isel(place), shifted, new[1].isel(place))
    deficit = LEVELS - below(xr.concat(issued, "init_time"), new[1])
    moved = (tracked.state["theta"] - start.state["theta"]).isel(lead_time=0)
    np.testing.assert_allclose(100 * 0.05 * 2.0 * deficit, moved[0], atol=1e-12)


@named
def test_exchangeable_cases_stay_calibrated(method):
    past, new = split(*archive(2.0 * noise(160, 1, 60) + 1.0), 60)
    start = OnlineCalibration.start(method, *past, pooled=("cell",))
    issued, _ = calibrate_online(start, *new)
    np.testing.assert_allclose(below(issued, new[1]), LEVELS, atol=0.03)


@named
def test_a_drift_is_followed(method):
    truth = noise(140, 1, 50) + 0.03 * np.arange(140)[:, None, None]
    past, new = split(*archive(truth), 60)
    start = OnlineCalibration.start(method, *past, pooled=("cell",))
    issued, _ = calibrate_online(start, *new)
    assert np.abs(below(issued, new[1]) - LEVELS).max() < 0.2
    assert np.abs(below(new[0], new[1]) - LEVELS).max() > 0.4


@named
def test_what_was_not_known_has_no_say(method):
    quantiles, truth = archive(noise(60, 3, 4), 3)
    past, new = split(quantiles, truth, 30)
    issued, _ = calibrate_online(OnlineCalibration.start(method, *past, pooled=("cell",)), *new)
    changed = new[1].copy()
    # The truth that forecast 20 cannot know: valid after its init time.
    later = changed["init_time"] + changed["lead_time"] > changed["init_time"][20]
    other, _ = calibrate_online(
        OnlineCalibration.start(method, *past, pooled=("cell",)),
        new[0],
        changed.where(~later, 99.0),
    )
    upto = {"init_time": slice(0, 21)}
    xr.testing.assert_identical(issued.isel(upto), other.isel(upto))
    assert not issued.isel(init_time=-1).equals(other.isel(init_time=-1))


@named
def test_latency_delays_learning(method):
    past, new = split(*archive(noise(60, 2, 4), 2), 50)
    start = OnlineCalibration.start(method, *past, pooled=("cell",))
    late, _ = calibrate_online(start, *new, latency=100 * DAY)
    fixed = xr.concat([start.apply(new[0].isel(init_time=i)) for i in range(10)], "init_time")
    if method.name.endswith("reach inf") and "recent" in method.name:
        return  # its weights move with the date even when nothing is learned
    xr.testing.assert_allclose(late, fixed)


@named
def test_state_goes_on_bit_for_bit_after_a_save_and_load(method, tmp_path):
    past, new = split(*archive(noise(45, 3, 4), 3), 30)
    start = OnlineCalibration.start(method, *past, pooled=("cell",))
    issued, running = calibrate_online(start, *new)
    running.save(tmp_path / "state.zarr")
    loaded = OnlineCalibration.load(tmp_path / "state.zarr", method)
    xr.testing.assert_identical(loaded.state, running.state)
    place = {"init_time": -1}
    one = [cal.update(new[0].isel(place), issued.isel(place), new[1].isel(place))
           for cal in (running, loaded)]  # fmt: skip
    xr.testing.assert_identical(one[0].state, one[1].state)
    xr.testing.assert_identical(*(cal.apply(new[0].isel(place)) for cal in one))


def test_a_repeated_update_changes_nothing():
    past, new = split(*archive(noise(70, 2, 4), 2), 60)
    start = OnlineCalibration.start(AdaptiveConformal(), *past, pooled=("cell",))
    first = new[0].isel(init_time=0)
    once = start.update(first, start.apply(first), new[1].isel(init_time=0))
    twice = once.update(first, start.apply(first), new[1].isel(init_time=0))
    xr.testing.assert_identical(once.state, twice.state)
    assert not once.state.equals(start.state)


def test_leads_are_learned_as_they_become_known():
    past, new = split(*archive(noise(70, 2, 4), 2), 60)
    start = OnlineCalibration.start(AdaptiveConformal(), *past, pooled=("cell",))
    first, truth = new[0].isel(init_time=0), new[1].isel(init_time=0)
    issued = start.apply(first)
    whole = start.update(first, issued, truth)
    known = truth.where(truth.lead_time < 2 * DAY)
    stepwise = start.update(first, issued, known).update(first, issued, truth)
    xr.testing.assert_allclose(stepwise.state, whole.state)


def test_tracking_may_start_from_nothing():
    quantiles, truth = archive(noise(160, 1, 60) + 2.0)
    none = {"init_time": slice(0, 0)}
    start = OnlineCalibration.start(
        QuantileTracking(0.1), quantiles.isel(none), truth.isel(none), pooled=("cell",)
    )
    xr.testing.assert_identical(start.apply(quantiles.isel(init_time=0)), quantiles[0])
    issued, _ = calibrate_online(start, quantiles, truth)
    late = {"init_time": slice(100, None)}
    np.testing.assert_allclose(below(issued.isel(late), truth.isel(late)), LEVELS, atol=0.04)


def test_groups_lean_on_their_pool():
    """All from the pool is one shift for all; none from it is each by itself."""
    quantiles, truth = archive(noise(100, 1, 6) + np.arange(6))
    past, new = split(quantiles, truth, 0)
    states = {}
    for share in (0.0, 0.5, 1.0):
        start = OnlineCalibration.start(
            QuantileTracking(0.05, memory=1), *past, towards=("cell",), share=share
        )
        _, end = calibrate_online(start, *new)
        states[share] = end.state["theta"].isel(lead_time=0, quantile=2).values
    assert (np.diff(states[0.0]) > 0.3).all()
    apart = {share: np.ptp(theta) for share, theta in states.items()}
    assert apart[0.0] > apart[0.5]


def test_too_few_cases_are_refused_with_the_number_needed():
    past, _ = split(*archive(noise(30)), 18)
    with pytest.raises(InputError, match="at least 19 cases, found 18"):
        OnlineCalibration.start(QuantileTracking(), *past)
    start = OnlineCalibration.start(AdaptiveConformal(), *past)
    with pytest.raises(InputError, match="at least 19 cases, found 18"):
        start.apply(past[0].isel(init_time=0))


def test_reach_holds_shifts_within_the_past_errors():
    past, new = split(*archive(adversaries(120)), 60)
    free, held = (
        calibrate_online(OnlineCalibration.start(AdaptiveConformal(0.1, reach=reach), *past), *new)[
            0
        ]
        for reach in (np.inf, 1.0)
    )
    assert not np.isfinite(free).all()
    assert np.isfinite(held).all()


def test_other_settings_than_saved_are_refused(tmp_path):
    past, _ = split(*archive(noise(60)), 60)
    start = OnlineCalibration.start(QuantileTracking(0.1), *past)
    start.save(tmp_path / "state.zarr")
    with pytest.raises(StoreError, match=r"learned by .*rate 0\.1.*expected .*rate 0\.2"):
        OnlineCalibration.load(tmp_path / "state.zarr", QuantileTracking(0.2))
    with pytest.raises(StoreError, match="no online calibration"):
        OnlineCalibration.load(tmp_path / "nothing.zarr", QuantileTracking(0.2))


def test_bad_arguments_are_refused():
    quantiles, truth = archive(noise(60))
    start = OnlineCalibration.start(QuantileTracking(), quantiles, truth)
    with pytest.raises(InputError, match="init times that ascend"):
        calibrate_online(start, quantiles[::-1], truth[::-1])
    with pytest.raises(InputError, match="share of 0 to 1, found 2"):
        OnlineCalibration.start(QuantileTracking(), quantiles, truth, share=2.0)
    with pytest.raises(InputError, match=r"\['site'\] are not among the cells"):
        OnlineCalibration.start(QuantileTracking(), quantiles, truth, pooled=("site",))
