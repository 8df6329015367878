"""Experiment files: what they hold, and what is said of a wrong one."""

from pathlib import Path

import numpy as np
import pytest

from data.errors import ConfigurationError
from pipelines.experiment import read_experiment

GOOD = """
name: demo
seed: 1
analyses: ../analyses.zarr
init_times: {first: 2006-01-05, last: 2006-01-10T12:00, every: 60h}
lead_time: 10d
members: 49
forecaster: {kind: neural, checkpoints: [a, b]}
perturbations:
  - {kind: bred_vectors, amplitude: 0.3}
store: {block: 4}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return path


def test_an_experiment_is_read_whole(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, GOOD))
    assert experiment.lead_time == 240
    assert experiment.steps(np.timedelta64(6, "h")) == 40
    assert list(map(str, experiment.init_times)) == [
        "2006-01-05T00:00:00",
        "2006-01-07T12:00:00",
        "2006-01-10T00:00:00",
    ]
    assert experiment.perturbations[0].amplitude == 0.3
    assert experiment.store.block == 4


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, GOOD))
    assert experiment.analyses == tmp_path.parent / "analyses.zarr"
    assert experiment.forecaster.checkpoints == (tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("lead_time", "leadtime", "unknown key 'leadtime', the nearest known key is 'lead_time'"),
        ("amplitude", "amplitud", "perturbations.0.bred_vectors: unknown key 'amplitud'"),
        ("block", "blok", "store: unknown key 'blok', the nearest known key is 'block'"),
        ("10d", "ten", "lead_time: 'ten' is no duration"),
        ("bred_vectors", "bread", "perturbations.0.kind: 'bread' is none of 'bred_vectors'"),
        ("first: 2006-01-05", "first: 2006-01-50", "init_times.first: '2006-01-50' is no time"),
        (
            "last: 2006-01-10T12:00",
            "last: 2005-01-01",
            "T00:00:00, is after last, 2005-01-01",
        ),
        ("name: demo", "name: ../demo", "name: String should match"),
        ("kind: neural", "kind: neurl", "forecaster.kind: 'neurl' is none of 'neural', 'pers"),
        ("kind: neural", "checkpoint: x", "forecaster.kind: Field required"),
        ("members: 49", "members: 0", "members: Input should be greater than or equal to 1"),
        ("seed: 1\n", "", "seed: Field required"),
        (GOOD, "just text", "expected keys and values, found str"),
        (GOOD, "a: [", "is no YAML"),
        ("seed: 1\n", "seed: 1\nseed: 2\n", "key 'seed' is given twice"),
    ],
)
def test_a_wrong_file_is_one_error_that_names_the_key(
    tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    assert right in GOOD
    path = written(tmp_path, GOOD.replace(right, wrong))
    with pytest.raises(ConfigurationError) as caught:
        read_experiment(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_experiment(tmp_path / "none.yaml")
    assert str(caught.value).count("none.yaml") == 1
    assert "No such file" in str(caught.value)


def test_a_lead_time_between_two_steps_is_refused(tmp_path: Path) -> None:
    experiment = read_experiment(written(tmp_path, GOOD.replace("10d", "9h")))
    with pytest.raises(ConfigurationError, match="9 h is no multiple of the forecaster's 6 h step"):
        experiment.steps(np.timedelta64(6, "h"))
