import numpy as np
import pytest
import torch

from data.errors import InputError
from scoring import moments
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, ExpectedCRPS
from scoring.decomposition import MemberIntervals
from scoring.device import evaluate_tensor
from scoring.extremes import DISCRETE, EXACT, ExtremeForecastIndex, ShiftOfTails
from scoring.members import BestMemberError, Gain
from scoring.probability import BrierScore, Exceedance, RankedProbabilityScore
from scoring.quantiles import IntervalHits, Quantiles
from scoring.rank import Outlier, Rank, RankHistogram
from scoring.statistic import OMIT, PROPAGATE, evaluate_arrays
from scoring.thresholds import Constants, Reference
from scoring.tile import Structure
from scoring.weighted import Above, Below, Between, OutcomeWeightedCRPS, ThresholdWeightedCRPS
from tests.scoring.test_statistic import CLIMATE as CLIMATES
from tests.scoring.test_statistic import QUANTILES, arrays
from tests.scoring.test_statistic import STATISTICS as EVERY

EVENTS = Constants((-1.0, 0.0, 2.0))
CLIMATE = Reference("climate", (0.0, 0.1, 0.9, 0.99, 1.0))
TAIL = Reference("climate", (0.9, 0.99))
BAND = Between(EVENTS, Constants((0.5, 3.0, 4.0)))
STATISTICS = (
    CRPS(FAIR), CRPS(STANDARD), CRPS(AlmostFair()), CRPS(STRATIFIED), ExpectedCRPS((2, 5)),
    *(ThresholdWeightedCRPS(weight) for weight in (Above(EVENTS), Below(EVENTS), BAND)),
    *(OutcomeWeightedCRPS(weight) for weight in (Above(EVENTS), Below(EVENTS), BAND)),
    Exceedance(EVENTS), Exceedance(TAIL), BrierScore(EVENTS), RankedProbabilityScore(EVENTS),
    Quantiles(), IntervalHits(), Rank(), RankHistogram(7), Outlier(),
    moments.EnsembleMean(), moments.Variance(), moments.SquaredError(), moments.SquaredTruth(),
    ExtremeForecastIndex(CLIMATE, DISCRETE), ExtremeForecastIndex(CLIMATE, EXACT),
    ShiftOfTails(TAIL),
)  # fmt: skip
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "digits"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_a_tensor_gives_the_numbers_of_an_array(device, dtype, digits):
    rng = np.random.default_rng(0)
    forecast = (rng.normal(0.5, 2, (4, 33, 6))).astype(dtype)
    forecast[:, :12] = np.round(forecast[:, :12])
    truth = np.round(rng.normal(0, 2, (4, 6))).astype(dtype)
    forecast[1, 5, 2], truth[3, 3] = np.nan, np.nan
    structure = Structure(np.repeat([0, 1, 2], 11), np.full(33, -1))
    climate = np.sort(rng.normal(0, 2, (4, 6, 5)), axis=-1).astype(dtype)
    references = {CLIMATE: climate, TAIL: climate[..., 2:4]}
    expected = evaluate_arrays(
        STATISTICS, forecast, truth, 1, structure=structure, references=references
    )
    found = evaluate_tensor(
        STATISTICS, torch.from_numpy(forecast).to(device), torch.from_numpy(truth).to(device), 1,
        structure,
        references={name: torch.from_numpy(field.copy()) for name, field in references.items()},
    )  # fmt: skip
    for statistic, values in expected.items():
        tensor = found[statistic]
        assert tensor.device.type == device
        assert tensor.dtype == torch.float64
        np.testing.assert_allclose(
            tensor.cpu(), values, rtol=digits, atol=digits, err_msg=statistic.key
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pairs", [np.full(20, -1), np.arange(20) // 2], ids=["alone", "pairs"])
def test_missing_members_are_left_out_like_those_of_an_array(device, pairs):
    rng = np.random.default_rng(2)
    forecast, truth = rng.normal(size=(20, 40)), rng.normal(size=40)
    forecast[3, :10] = forecast[7:12, 5:15] = np.nan
    forecast[:19, 20], forecast[:, 21], truth[22] = np.nan, np.nan, np.nan
    structure = Structure(np.repeat([0, 1], 10), pairs)
    climate = np.sort(rng.normal(size=(40, 2)), axis=-1)
    statistics = (
        CRPS(FAIR), CRPS(STRATIFIED), CRPS(STANDARD), moments.Variance(), Rank(), Exceedance(TAIL),
        ThresholdWeightedCRPS(Above(EVENTS), STRATIFIED), Quantiles(),
    )  # fmt: skip
    expected = evaluate_arrays(
        statistics, forecast, truth, 0, structure, OMIT, references={TAIL: climate}
    )
    found = evaluate_tensor(
        statistics, torch.from_numpy(forecast).to(device), torch.from_numpy(truth).to(device),
        0, structure, OMIT, {TAIL: torch.from_numpy(climate)},
    )  # fmt: skip
    for statistic, values in expected.items():
        np.testing.assert_allclose(
            found[statistic].cpu(), values, rtol=1e-10, atol=1e-10, err_msg=statistic.key
        )


def with_infinite(dtype):
    """Members and truth that are infinite or missing in some cells."""
    rng = np.random.default_rng(3)
    forecast, truth = rng.normal(size=(20, 40)).astype(dtype), rng.normal(size=40).astype(dtype)
    forecast[3, :10], forecast[7:12, 5:15] = np.inf, -np.inf
    forecast[4, 8:12], forecast[:19, 20], forecast[:, 21] = np.nan, -np.inf, np.inf
    truth[22:24] = np.inf, -np.inf
    return forecast, truth


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("missing", [PROPAGATE, OMIT], ids=["propagate", "omit"])
@pytest.mark.parametrize("pairs", [np.full(20, -1), np.arange(20) // 2], ids=["alone", "pairs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_members_and_truth_are_missing_like_those_of_an_array(
    device, missing, pairs, dtype
):
    forecast, truth = with_infinite(dtype)
    structure = Structure(np.repeat([0, 1], 10), pairs)
    climate = np.sort(np.random.default_rng(4).normal(size=(40, 2)), axis=-1).astype(dtype)
    statistics = (
        CRPS(FAIR), CRPS(STRATIFIED), CRPS(STANDARD), moments.EnsembleMean(), moments.Variance(),
        Rank(), Exceedance(TAIL), ThresholdWeightedCRPS(Above(EVENTS), STRATIFIED), Quantiles(),
        BestMemberError((1, 2)), Gain(),
    )  # fmt: skip
    expected = evaluate_arrays(
        statistics, forecast, truth, 0, structure, missing, references={TAIL: climate}
    )
    found = evaluate_tensor(
        statistics, torch.from_numpy(forecast).to(device), torch.from_numpy(truth).to(device),
        0, structure, missing, {TAIL: torch.from_numpy(climate)},
    )  # fmt: skip
    digits = 1e-5 if dtype == np.float32 else 1e-10
    assert np.isfinite(expected[CRPS(STANDARD)]).sum() == (21 if missing == PROPAGATE else 37)
    for statistic, values in expected.items():
        np.testing.assert_allclose(
            found[statistic].cpu(), values, rtol=digits, atol=digits, err_msg=statistic.key
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("missing", [PROPAGATE, OMIT], ids=["propagate", "omit"])
def test_a_truth_in_double_precision_is_not_rounded_before_it_is_subtracted(device, missing):
    rng = np.random.default_rng(5)
    truth = rng.normal(54_000, 1e-3, 30)  # a rounded one is off by 2e-3
    event = Constants((54_000.0,))  # as many members are
    forecast = (truth + rng.normal(0, 1e-3, (12, 30))).astype(np.float32)
    forecast[2, :4] = np.nan
    statistics = (
        CRPS(FAIR), CRPS(STRATIFIED), moments.EnsembleMean(), Rank(), Quantiles(),
        ThresholdWeightedCRPS(Above(event)), Exceedance(event), BrierScore(event),
    )  # fmt: skip
    expected = evaluate_arrays(statistics, forecast, truth, 0, missing=missing)
    found = evaluate_tensor(
        statistics, torch.from_numpy(forecast).to(device), torch.from_numpy(truth).to(device),
        missing=missing,
    )  # fmt: skip
    wide = evaluate_arrays((CRPS(FAIR),), forecast.astype(float), truth, 0, missing=missing)
    np.testing.assert_allclose(found[CRPS(FAIR)].cpu(), wide[CRPS(FAIR)], rtol=1e-5)
    for statistic, values in expected.items():
        np.testing.assert_allclose(
            found[statistic].cpu(), values, rtol=1e-6, atol=1e-9, err_msg=statistic.key
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("missing", [PROPAGATE, OMIT], ids=["propagate", "omit"])
@pytest.mark.parametrize(("dtype", "digits"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_every_statistic_of_a_tensor_is_that_of_an_array(device, missing, dtype, digits):
    forecast, truth = (array.astype(dtype) for array in arrays())
    forecast[0, 3, 1, 2], forecast[1, :, 0, 0], truth[2, 2, 2] = np.nan, np.inf, -np.inf
    statistics = (*EVERY, MemberIntervals(10))
    references = {
        reference: np.broadcast_to(
            QUANTILES[np.isin(CLIMATES.levels, reference.levels)].astype(dtype),
            (*truth.shape, len(reference.levels)),
        ).copy()
        for statistic in statistics
        for reference in statistic.references
    }
    expected = evaluate_arrays(
        statistics, forecast, truth, 1, missing=missing, references=references
    )
    found = evaluate_tensor(
        statistics, torch.from_numpy(forecast).to(device), torch.from_numpy(truth).to(device), 1,
        missing=missing,
        references={name: torch.from_numpy(field) for name, field in references.items()},
    )  # fmt: skip
    for statistic, values in expected.items():
        np.testing.assert_allclose(
            found[statistic].cpu(), values, rtol=digits, atol=digits, err_msg=statistic.key
        )


def test_members_in_another_precision_are_taken_as_doubles():
    rng = np.random.default_rng(6)
    forecast, truth = rng.normal(size=(9, 30)).astype(np.float16), rng.normal(size=30)
    expected = evaluate_arrays((CRPS(),), forecast, truth, 0)[CRPS()]
    found = evaluate_tensor((CRPS(),), torch.from_numpy(forecast), torch.from_numpy(truth))[CRPS()]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_cells_in_several_pieces_are_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    forecast, truth = torch.from_numpy(rng.normal(size=(9, 50))), torch.zeros(50).double()
    whole = evaluate_tensor((CRPS(),), forecast, truth)[CRPS()]
    monkeypatch.setattr("scoring.device._CELLS_TIMES_MEMBERS", 70)
    pieces = evaluate_tensor((CRPS(),), forecast, truth)[CRPS()]
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-14)


def test_shapes_and_needs_are_checked():
    forecast = torch.zeros(1, 5)
    with pytest.raises(InputError, match=r"truth has shape \(4,\), the forecast's cells have \(5,"):
        evaluate_tensor((CRPS(STANDARD),), forecast, torch.zeros(4))
    with pytest.raises(InputError, match="needs at least 2 members, found 1"):
        evaluate_tensor((CRPS(FAIR),), forecast, torch.zeros(5))
    with pytest.raises(InputError, match="needs the reference 'climate'"):
        evaluate_tensor((Exceedance(TAIL),), forecast, torch.zeros(5))
    with pytest.raises(InputError, match=r"groups have shape \(3,\), expected \(1,\)"):
        evaluate_tensor((CRPS(STANDARD),), forecast, torch.zeros(5), 0, Structure.independent(3))
