"""An experiment and its folder: steps from analyses to a report, each of which can be repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import ConfigurationError, StoreError
from data.source import open_source
from pipelines import engine
from pipelines.configuration import naming
from pipelines.estimate import estimate
from pipelines.experiment import ClusterSettings, Experiment, read_experiment
from pipelines.plan import Plan, make_plan
from pipelines.references import check_references
from pipelines.store import statistics_folder

# What computes forecasts, and what judges them, is imported where it is used: a run that finds
# nothing to do need not wait for either.
if TYPE_CHECKING:
    from pipelines import score, validate
    from pipelines.against import Scored
    from pipelines.calibration import judge
    from pipelines.clusters import Cluster
    from pipelines.report import page


@dataclass(frozen=True)
class Job:
    """The steps of one experiment; every step reads what the one before it wrote.

    Attributes
    ----------
    experiment : Experiment
        What to do.
    folder : pathlib.Path
        Where everything goes.
    file : pathlib.Path or None
        The experiment's, for messages.
    """

    experiment: Experiment
    folder: Path
    file: Path | None = None

    @classmethod
    def read(cls, file: Path, runs: Path) -> Job:
        """The job of an experiment file, in the folder of its name below `runs`."""
        experiment = read_experiment(file)
        return cls(experiment, runs / experiment.name, file)

    def on(self, cluster: ClusterSettings) -> Job:
        """The same job on another cluster."""
        return replace(self, experiment=self.experiment.model_copy(update={"cluster": cluster}))

    @property
    def forecast(self) -> Path:
        """The forecast store."""
        return self.folder / "forecast.zarr"

    @property
    def statistics(self) -> Path:
        """The folder of what is kept of all members in flight."""
        return statistics_folder(self.forecast)

    @property
    def written(self) -> Path:
        """Where a run goes: the store, or the statistics where no member is stored."""
        return self.statistics if self.experiment.store.members == "none" else self.forecast

    @property
    def scores(self) -> Path:
        """The folder of scores."""
        return self.folder / "scores"

    def run(self) -> engine.Progress:
        """Forecast what is missing, on the experiment's cluster; see `engine.run`."""
        plan = self.plan()
        found = estimate(plan)
        found.check()
        return engine.run(plan, self._cluster() if found.pending else None)

    def _cluster(self) -> Cluster:
        """Who computes."""
        from pipelines.clusters import make_cluster

        return make_cluster(self.experiment.cluster)

    def plan(self) -> Plan:
        """What is to be forecast, checked with what will judge it; see `make_plan`."""
        with naming(self.file):
            plan = make_plan(self.experiment, self.forecast)
            check_references(plan)
        return plan

    def validate(self) -> list[validate.Validation]:
        """Read all that a run has written, and prove it sound; see `validate.validate`."""
        from pipelines import validate

        kept, stored = self.experiment.in_flight, self.experiment.store.members != "none"
        wanted = [*([self.statistics] if kept else []), *([self.forecast] if stored else [])]
        return [validate.validate(path) for path in wanted]

    def repair(self, found: validate.Validation) -> validate.Validation:
        """Have what is damaged in the store computed again; see `validate.repair`."""
        from pipelines import validate

        return validate.repair(self.plan(), found, self._cluster())

    def score(
        self,
        settings: score.ScoreSettings | None = None,
        output: Path | None = None,
        against: Scored | None = None,
    ) -> score.ScoreResult:
        """Score the forecasts, into the job's own folder by default; see `score.score`."""
        return self.score_alike(self._judged(), output or self.scores, settings, against)

    def score_alike(
        self,
        forecast: Path,
        output: Path,
        settings: score.ScoreSettings | None = None,
        against: Scored | None = None,
    ) -> score.ScoreResult:
        """Score any forecast as this one is scored, into a folder; see `score.score`."""
        from pipelines import score

        return score.score(
            forecast,
            self.truth,
            output,
            self.experiment.climatology,
            self.experiment.analyses,
            settings,
            against,
        )

    def calibrate(
        self, settings: judge.CalibrationSettings | None = None
    ) -> judge.CalibrationResult:
        """Calibrate the forecasts' quantiles; see `judge.calibrate`."""
        from pipelines.calibration import judge

        return judge.calibrate(self._finished(), self.truth, self.folder / "calibration", settings)

    def findings(self) -> page.Findings:
        """What has been scored and calibrated so far."""
        from pipelines.report import page

        coverage = self.folder / "calibration" / "coverage.zarr"
        return page.read_findings(self.scores, coverage)

    def report(self) -> Path:
        """Write the report on whatever has been scored and calibrated."""
        from pipelines.forecasts import open_forecast
        from pipelines.report import page

        findings = self.findings()
        judged = self._judged()
        with open_forecast([judged]) as forecast:
            if judged == self.statistics:
                forecast = forecast.drop_vars(list(forecast.data_vars))  # no member to draw
            return page.write_report(
                self.folder / "report.html", findings, forecast, open_source(self.truth)
            )

    def _judged(self) -> Path:
        """What is scored: all members where they are stored, else what was kept of them."""
        if self.experiment.stores_all:
            return self._finished()
        if not self.statistics.exists():
            raise StoreError(f"{self.statistics}: no statistics are there; `myriad run` makes them")
        return self.statistics

    def _finished(self) -> Path:
        if self.experiment.store.members == "none":
            raise StoreError(f"{self.folder}: this needs members, and the experiment stores none")
        if not self.forecast.exists():
            raise StoreError(f"{self.forecast}: no store is there; `myriad run` makes it")
        return self.forecast

    @property
    def truth(self) -> Path:
        """What judges the forecasts.

        Raises
        ------
        ConfigurationError
            If the experiment names none.
        """
        if self.experiment.truth is None:
            with naming(self.file):
                raise ConfigurationError("truth: is needed here; the experiment names none")
        return self.experiment.truth
