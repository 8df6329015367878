"""The same statistics of members that are a torch tensor, on a CPU or a GPU.

Whatever reduces members runs on the tensor's device; what is left, one number or a few for each
cell, is computed by the same statistics as everywhere. Sums are taken in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from scoring.statistic import PROPAGATE, Missing, Statistic, check_needs, fitting
from scoring.thresholds import Reference
from scoring.tile import TRUTH, Divider, Structure

_CELLS_TIMES_MEMBERS = 2**26


def evaluate_tensor(
    statistics: Sequence[Statistic],
    forecast: torch.Tensor,
    truth: torch.Tensor,
    dim: int = 0,
    structure: Structure | None = None,
    missing: Missing = PROPAGATE,
    references: Mapping[Reference, torch.Tensor] | None = None,
) -> dict[Statistic, torch.Tensor]:
    """All statistics of a tensor, the same as `evaluate_arrays` gives.

    Parameters
    ----------
    statistics : sequence of Statistic
        What to evaluate. Those that ask for each member (stratified estimators) fetch them from
        the device.
    forecast : torch.Tensor
        float32 or float64, other types are taken as float64; members along `dim`.
    truth : torch.Tensor
        The shape of `forecast` without `dim`, on the same device.
    dim : int
        Dimension of members.
    structure : Structure, optional
        Which members depend on each other; independent by default.
    missing : Missing
        `PROPAGATE` (default) or `OMIT`.
    references : mapping of Reference to torch.Tensor, optional
        Fields that statistics name, (*cells, level).

    Returns
    -------
    dict of Statistic to torch.Tensor
        (*cells, *labels), float64, on the device of `forecast`.

    Raises
    ------
    InputError
        If shapes do not fit, a reference is not there, or there are too few members.
    """
    members, references = forecast.movedim(dim, -1), references or {}
    if members.dtype not in (torch.float32, torch.float64):
        members = members.double()
    size, cells = members.shape[-1], tuple(members.shape[:-1])
    structure = fitting(structure, size, tuple(truth.shape), cells)
    check_needs(statistics, size, references)
    parts: dict[Statistic, list[np.ndarray]] = {statistic: [] for statistic in statistics}
    for tile in _tiles(members.reshape(-1, size), truth.reshape(-1), structure, references):
        for statistic, values in parts.items():
            values.append(missing.of_tile(statistic, tile))
    return {
        statistic: torch.from_numpy(np.concatenate(values))
        .reshape(*cells, *values[0].shape[1:])
        .to(forecast.device)
        for statistic, values in parts.items()
    }


def _tiles(
    members: torch.Tensor,
    truth: torch.Tensor,
    structure: Structure,
    references: Mapping[Reference, torch.Tensor],
) -> Iterator[TensorTile]:
    """Cells, (cell, member), as many at a time as the device has room for."""
    beside = {name: values.reshape(len(members), -1) for name, values in references.items()}
    if not truth.isfinite().all():
        truth = truth.masked_fill(~truth.isfinite(), torch.nan)  # infinite is missing
    step = max(1, _CELLS_TIMES_MEMBERS // members.shape[1])
    for start in range(0, len(members), step):
        some = slice(start, start + step)
        fields = {name: values[some].cpu().numpy() for name, values in beside.items()}
        yield TensorTile(members[some], truth[some], structure, fields)


@dataclass(frozen=True)
class TensorTile:
    """Some cells with all their members on a device; what `Tile` has, by the definitions.

    Attributes
    ----------
    source : torch.Tensor
        (cell, member)
    target : torch.Tensor
        (cell,): truth, nowhere infinite.
    structure : Structure
        Which members depend on each other.
    references : mapping
        Fields that statistics compare with, (cell, level).
    """

    source: torch.Tensor
    target: torch.Tensor
    structure: Structure
    references: Mapping[Reference, np.ndarray] = field(default_factory=dict)
    _cuts: dict[Divider, TensorCut] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def sorted(self) -> torch.Tensor:
        """(cell, member): member minus truth, ascending along members; NaN in cells where a
        member or the truth is missing or infinite."""
        ascending = self._less_truth().sort(dim=1).values
        finite = ascending[:, 0].isfinite() & ascending[:, -1].isfinite()
        return ascending.masked_fill_(~finite[:, None], torch.nan)

    @property
    def size(self) -> int:
        """Number of members, M."""
        return self.source.shape[1]

    @cached_property
    def truth(self) -> np.ndarray:
        """(cell,)"""
        return self.target.cpu().numpy()

    @property
    def missing(self) -> np.ndarray:
        """Whether a member or the truth is missing or infinite, (cell,)."""
        return self.sorted[:, 0].isnan().cpu().numpy()

    @cached_property
    def deviations(self) -> np.ndarray:
        """(cell, member): member minus truth, ascending along members, off the device."""
        return self.sorted.cpu().numpy()

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64: precision of the members."""
        return torch.empty(0, dtype=self.source.dtype).numpy().dtype

    @property
    def centred(self) -> np.ndarray:
        """Member minus truth in the members' own order, (cell, member), off the device; NaN in
        cells that are missing."""
        missing = self.sorted[:, :1].isnan()
        return self._less_truth().masked_fill_(missing, torch.nan).cpu().numpy()

    @cached_property
    def mean_error(self) -> np.ndarray:
        """Ensemble mean minus truth, (cell,), float64."""
        return self.sorted.mean(dim=1, dtype=torch.float64).cpu().numpy()

    @cached_property
    def mean_absolute_error(self) -> np.ndarray:
        """S = mean_i |d_i|, (cell,), float64."""
        return self.sorted.abs().mean(dim=1, dtype=torch.float64).cpu().numpy()

    @cached_property
    def difference_sum(self) -> np.ndarray:
        """T = 2 sum_i (2i - M - 1) d_(i), (cell,), float64."""
        return 2 * _ranked(self.sorted).cpu().numpy()

    @cached_property
    def variance(self) -> np.ndarray:
        """s^2, M - 1 in the denominator, (cell,), float64; NaN for a single member."""
        if self.size == 1:
            return np.full(self.truth.shape, np.nan)
        return self.sorted.double().var(dim=1).cpu().numpy()

    @property
    def origin(self) -> TensorCut:
        """The members divided by the truth, one threshold."""
        return self.cut(TRUTH)

    def cut(self, thresholds: Divider) -> TensorCut:
        """The members divided by thresholds."""
        if thresholds not in self._cuts:
            values, above = thresholds.deviations(self), thresholds.truth_above(self)
            self._cuts[thresholds] = TensorCut(self.sorted, values, above)
        return self._cuts[thresholds]

    @cached_property
    def parts(self) -> list[tuple[np.ndarray, TensorTile]]:
        """Cells with the same members there, and the tile of these members; others have none."""
        if not self.missing.any():
            return [(np.arange(len(self.target)), self)]
        present = (self.source.isfinite() & ~self.target.isnan()[:, None]).cpu().numpy()
        # Which ones are missing matters only where members depend on each other.
        kinds = present if self.structure.dependent else present.sum(axis=1, keepdims=True)
        _, first, kind = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        groups = [np.flatnonzero(kind.ravel() == number) for number in range(first.size)]
        return [
            (cells, self._of(cells, present[cells])) for cells in groups if present[cells[0]].any()
        ]

    def _less_truth(self) -> torch.Tensor:
        """(cell, member), a new tensor: in the wider of their precisions before it is rounded to
        that of the members."""
        return (self.source - self.target[:, None]).to(self.source.dtype).contiguous()

    def _of(self, cells: np.ndarray, present: np.ndarray) -> TensorTile:
        """The tile of these cells with the members present, (cell, member), as many in each."""
        place, there = (torch.from_numpy(one).to(self.source.device) for one in (cells, present))
        source = self.source[place][there].reshape(cells.size, -1)
        structure = Structure.independent(source.shape[1])
        if self.structure.dependent:
            structure = Structure(
                self.structure.groups[present[0]], self.structure.pairs[present[0]]
            )
        references = {name: values[cells] for name, values in self.references.items()}
        return TensorTile(source, self.target[place], structure, references)

    def weighted_count(self, thresholds: Divider, weights: np.ndarray) -> np.ndarray:
        """Sum over many thresholds of a weight times the members not above, (cell,), float64."""
        return self.cut(thresholds).not_above @ weights

    def ordered(self, positions: np.ndarray) -> np.ndarray:
        """The members at some positions of their order, counted from 0, (cell, position)."""
        return self.sorted[:, torch.from_numpy(positions)].double().cpu().numpy()


class TensorCut:
    """Members of each cell divided by thresholds; what `Cut` has, by the definitions.

    Parameters
    ----------
    members : torch.Tensor
        (cell, member), ascending deviations from the truth.
    values : numpy.ndarray
        (cell, threshold): threshold minus truth.
    truth_above : numpy.ndarray
        (cell, threshold): whether the truth lies above the threshold.
    """

    def __init__(self, members: torch.Tensor, values: np.ndarray, truth_above: np.ndarray) -> None:
        self._members = members
        self.truth_above = truth_above
        self.values = values.astype(np.float64)
        self._values = torch.from_numpy(values).to(members.device, members.dtype)

    @cached_property
    def not_above(self) -> np.ndarray:
        """Members at or below each threshold, (cell, threshold) int."""
        values = self._values.contiguous()
        return torch.searchsorted(self._members, values, right=True).cpu().numpy()

    @cached_property
    def below(self) -> np.ndarray:
        """Members strictly below each threshold, (cell, threshold) int."""
        return torch.searchsorted(self._members, self._values.contiguous()).cpu().numpy()

    @property
    def excess(self) -> np.ndarray:
        """Sum of (d - v)_+, (cell, threshold)."""
        return self._excess[0]

    @property
    def ranked_excess(self) -> np.ndarray:
        """Sum of w (d - v)_+, w_i = 2i - M - 1, (cell, threshold)."""
        return self._excess[1]

    @property
    def shortfall(self) -> np.ndarray:
        """Sum of (v - d)_+, (cell, threshold)."""
        return self._shortfall[0]

    @property
    def ranked_shortfall(self) -> np.ndarray:
        """Sum of w (v - d)_+, w_i = 2i - M - 1, (cell, threshold)."""
        return self._shortfall[1]

    @cached_property
    def _excess(self) -> tuple[np.ndarray, np.ndarray]:
        return self._sums(1)

    @cached_property
    def _shortfall(self) -> tuple[np.ndarray, np.ndarray]:
        return self._sums(-1)

    def _sums(self, sign: int) -> tuple[np.ndarray, np.ndarray]:
        """Plain and ranked sums of what lies beyond, a threshold at a time."""
        plain, ranked = [], []
        for value in self._values.T:
            amount = (sign * (self._members - value[:, None])).clamp(min=0)
            plain.append(amount.sum(dim=1, dtype=torch.float64))
            ranked.append(_ranked(amount))
        return torch.stack(plain, 1).cpu().numpy(), torch.stack(ranked, 1).cpu().numpy()


def _ranked(values: torch.Tensor) -> torch.Tensor:
    """Sum of (2i - M - 1) times value i, (cell,), float64."""
    size = values.shape[1]
    weights = torch.arange(1 - size, size, 2, device=values.device, dtype=torch.float64)
    return values.double() @ weights
