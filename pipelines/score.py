"""`myriad score`: an ensemble against its truth, beside control, climatology and persistence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import xarray as xr

from data.climatology import Climatology
from data.errors import InputError, StoreError
from pipelines import against_table
from pipelines.against import Scored, compare
from pipelines.channel_sums import ChannelSums, can_persist
from pipelines.families import Additions, Ensemble
from pipelines.labels import check_replaceable, open_labelled
from pipelines.masks import fitted
from pipelines.members import ALL_MEMBERS, Asked, MemberBlocks, Members
from pipelines.score_table import ScoreResult, scores_from
from pipelines.sketched import Sketched
from pipelines.tally import Tally
from pipelines.truths import Paths, Series, Truths, open_climatology
from pipelines.verification import Verification, VerificationSettings, open_verification
from scoring.identity import key_of
from scoring.regions import REGIONS, Region
from scoring.statistic import PROPAGATE, Missing
from scoring.sums import Sums

_CLIMATE_MEMBERS = 50
_FAMILIES = "families"
_NAMED = 3


@dataclass(frozen=True)
class ScoreSettings(VerificationSettings):
    """How to score.

    Attributes
    ----------
    regions : mapping of str to Region
        Those that the grid reaches are scored; the first one heads every table.
    missing : Missing
        `PROPAGATE` (default) or `OMIT`.
    mask : xarray.DataArray or None
        Weights of cells beside the area's, for example 1 over land.
    members : Members
        `ALL_MEMBERS` (default), or `MemberBlocks` for ensembles that do not fit into memory.
    threads : int
        Tiles worked on at a time.
    families : tuple of str
        Of `pipelines.families.FAMILIES`: scores beside those that are always there.
    """

    regions: Mapping[str, Region] = field(default_factory=lambda: dict(REGIONS))
    missing: Missing = PROPAGATE
    mask: xr.DataArray | None = None
    members: Members = ALL_MEMBERS
    threads: int = 1
    families: tuple[str, ...] = ()

    def additions(self, pair: Verification, climatology: Climatology | None) -> Additions:
        """The scores of the families.

        Raises
        ------
        InputError
            If one cannot be had of this forecast, or members are never all present.
        """
        if not self.families:
            return Additions()
        if self.members.present is not None:
            raise InputError(
                f"family {self.families[0]!r} needs all members at once, not in blocks"
            )
        return Additions.of(self.families, Ensemble.of(pair, climatology, self.mask))

    def identity(
        self, pair: Verification, regions: Sequence[str], climatology: Climatology | None = None
    ) -> dict[str, str]:
        """What tells sums under these settings from others, by name."""
        mask = None if self.mask is None else fitted(self.mask, pair.cells()).values
        known = [name for name in regions if name in self.regions]
        return {
            "missing": key_of(self.missing),
            "members": key_of(self.members),
            "mask": "none" if mask is None else key_of(mask),
            **({} if climatology is None else {"climatology": climatology.digest}),
            **{f"region {name}": key_of(self.regions[name]) for name in known},
        }


def score(
    forecast: Paths,
    truth: Paths,
    output: Path,
    climatology: Path | None = None,
    analysis: Paths | None = None,
    settings: ScoreSettings | None = None,
    against: Scored | None = None,
) -> ScoreResult:
    """Score a forecast and write `scores.zarr`, `sums.zarr` and `scores.csv` into a folder.

    Parameters
    ----------
    forecast : path or sequence of paths
        A forecast store, or files of an ensemble on any grid.
    truth : path or sequence of paths
        Files that hold the truth at the valid times.
    output : pathlib.Path
        Folder to write into; scores that are there are replaced.
    climatology : pathlib.Path, optional
        A climatology store; adds climatology and ACC.
    analysis : path or sequence of paths, optional
        Analyses at the init times; adds persistence. Without it the control at lead 0 is taken,
        if the store holds it.
    settings : ScoreSettings, optional
        How to score.
    against : Scored, optional
        What to compare with; adds `against.zarr` and `against.csv`, which are removed without it.

    Raises
    ------
    InputError, StoreError
        If something does not fit, before any field is read; if the scores that are there have
        channels of this forecast, families, references or scores that were not asked for: they
        would be lost; or if it cannot be compared. The output is then untouched.
    """
    settings = settings or ScoreSettings()
    pair = open_verification(forecast, truth, settings.channels or None)
    if "statistics" in pair.forecast.coords:
        settings = replace(settings, members=Sketched.of(pair))
    else:
        pair.check_bounds()
    climate = None
    if climatology is not None:
        climate = open_climatology(climatology, pair.channels, pair.grid(), pair.where)
    analyses = None if analysis is None else _analyses(analysis, pair)
    weights = pair.weights(settings.regions, settings.mask)
    additions = settings.additions(pair, climate)
    _check_writable(output)
    if against is not None:
        against_table.check_writable(output)
    _check_nothing_is_lost(output / "scores.zarr", pair, (climate, analyses), settings)
    sums = _sums(pair, (climate, analyses), weights, settings, additions)
    scores = scores_from(sums, pair, weights, settings.members, additions.scores)
    scores.attrs[_FAMILIES] = list(settings.families)
    result = ScoreResult(scores, sums, output)
    if against is not None:
        result = replace(result, comparison=compare(result, against))
    result.write()
    return result


def _analyses(paths: Paths, pair: Verification) -> Truths:
    """The analyses, if they hold every channel at every init time."""
    found = Truths.open(paths)
    found.check(pair.forecast, pair.channels, pair.where)
    return found


def families_in(output: Path) -> tuple[str, ...]:
    """The families that the scores in a folder have; none where there are no scores."""
    if not (output / "scores.zarr").is_dir():
        return ()
    with open_labelled(output / "scores.zarr") as scores:
        return tuple(scores.attrs.get(_FAMILIES, ()))


def _check_nothing_is_lost(
    path: Path,
    pair: Verification,
    compared: tuple[Climatology | None, Truths | None],
    settings: ScoreSettings,
) -> None:
    """Refuse to replace scores by others that leave out what could be scored again.

    Raises
    ------
    StoreError
        Naming what would be lost.
    """
    if not path.is_dir():
        return
    with open_labelled(path) as scores:
        channels = [name for name in scores.channel.values if name in pair.forecast]
        forecasts, whole = scores.forecast.values, "rank_histogram" in scores
    climatology, analyses = compared
    persists = analyses is not None or can_persist(pair)
    lost = {
        "channel": [str(name) for name in channels if name not in pair.channels],
        "family": [name for name in families_in(path.parent) if name not in settings.families],
        "climatology": ["FILE"] if "climatology" in forecasts and climatology is None else [],
        "analysis": ["FILE"] if "persistence" in forecasts and not persists else [],
    }
    options = [f"--{option} {name}" for option, names in lost.items() for name in names]
    if len(lost["channel"]) > _NAMED:
        options = ["all channels", *options[len(lost["channel"]) :]]
    if whole and isinstance(settings.members, MemberBlocks):
        options.append("all members at once")
    if options:
        raise StoreError(
            f"{path}: has scores that would be lost, nothing was changed; ask for them too "
            f"({' '.join(options)}), choose another --output, or remove {path.parent}"
        )


def _check_writable(output: Path) -> None:
    for folder in (output.absolute(), *output.absolute().parents):
        if (folder / "zarr.json").exists() or (folder / ".zgroup").exists():
            raise StoreError(
                f"{output}: lies inside the zarr store {folder}, choose another folder"
            )
    for name in ("scores.zarr", "sums.zarr"):
        check_replaceable(output / name)
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"{output}: cannot be written: {error.strerror or error}") from error


def _sums(
    pair: Verification,
    compared: tuple[Climatology | None, Truths | None],
    weights: xr.DataArray,
    settings: ScoreSettings,
    additions: Additions,
) -> Sums:
    """Sums of the forecast and of the climatology and analyses that it is compared with."""
    climatology, analyses = compared
    asked = Asked(settings.missing, settings.threads, additions.statistics)
    regions = weights.region.values.tolist()
    tally = Tally.of(pair, regions, settings.identity(pair, regions, climatology))
    for name in pair.channels:
        one = ChannelSums(
            pair,
            pair.truths(name, settings.memory),
            climatology,
            None if analyses is None else _at_init_times(analyses, name, pair, settings.memory),
            weights.values,
            settings.members,
            additions,
            asked,
            tally,
        )
        beside = 1 if climatology is None else _CLIMATE_MEMBERS
        beside += 2 * additions.values  # float64
        memory = min(settings.memory, settings.members.memory)
        for block in pair.blocks(name, memory, settings.members.present, beside):
            one.add(block)
        if additions.fields:
            for block in pair.fields(name, memory):
                one.add_fields(block)
    return tally.sums()


def _at_init_times(analyses: Truths, name: str, pair: Verification, memory: int) -> Series:
    times = np.unique(pair.forecast.init_time.values.astype("datetime64[s]"))
    return analyses.series(name, times, pair.cell_dims, memory)
