"""Training: phases of gradient descent through rollouts of growing length, resumable exactly.

Every draw is addressed by a Key (phase, epoch or update), so the position in training is two
numbers, and a run that was stopped and resumed ends with the same weights, bit for bit.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from data.errors import ConfigurationError
from data.key import Key
from forecast.dataset import Archive, Normalisation
from forecast.latent import LatentNoise
from forecast.loss import (
    AlmostFairCRPS,
    AmplitudePreservingError,
    Loss,
    SquaredError,
    Sum,
    VarianceError,
)
from forecast.sfno import SFNO

LOSS_NAMES = (
    "squared-error",
    "amplitude-preserving",
    "variance-keeping",
    "almost-fair-crps",
)
_VARIANCE_WEIGHT = 200.0


@dataclass(frozen=True)
class Phase:
    """One stage of training; the optimiser starts afresh, the weights go on.

    Attributes
    ----------
    steps : int
        Length of the rollouts; gradients go through the whole chain.
    updates : int
        Number of gradient steps (fewer if validation stops improving).
    learning_rate : float
        Peak of the schedule: linear warm-up, then half a cosine to zero.
    loss : str
        ``squared-error``, ``amplitude-preserving``, ``variance-keeping`` (the former plus 200
        times the variance error; for long rollouts) or ``almost-fair-crps``.
    batch, members : int
        Cases per update and members per case (above 1 only with latent noise).
    warmup : int
        Updates of the warm-up.
    lead_decay : float
        Step k of a rollout counts ``k ** -lead_decay``: 1 balances the growth of errors, 0 puts
        the weight on the longest leads.
    """

    steps: int
    updates: int
    learning_rate: float
    loss: str = "squared-error"
    batch: int = 4
    members: int = 1
    warmup: int = 100
    lead_decay: float = 1.0

    def rate(self, update: int) -> float:
        """Learning rate of this update."""
        rise = min(1.0, (update + 1) / self.warmup)
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * update / self.updates))


@dataclass(frozen=True)
class Regime:
    """What holds in all phases.

    Attributes
    ----------
    seed : int
        Base seed of every draw.
    weight_decay, clip : float
        Of AdamW, and the largest norm of the gradient.
    averaging : float
        Decay of the exponential moving average of the weights, which is what is validated and
        exported.
    validate_every, validation_cases, patience : int
        A phase ends early when the validation loss has not improved `patience` times running.
    save_every : int
        Updates between two savings of the position.
    """

    seed: int
    weight_decay: float = 0.01
    clip: float = 1.0
    averaging: float = 0.998
    validate_every: int = 500
    validation_cases: int = 48
    patience: int = 8
    save_every: int = 500


@dataclass(frozen=True)
class Material:
    """What is trained on.

    Attributes
    ----------
    archive : Archive
    normalisation : Normalisation
    training, validation : numpy.ndarray
        (time,), bool: rows of the archive, disjoint.
    timestep : numpy.timedelta64
    """

    archive: Archive
    normalisation: Normalisation
    training: np.ndarray
    validation: np.ndarray
    timestep: np.timedelta64

    def climatology(self) -> torch.Tensor:
        """Time mean of the training rows, (channel, latitude, longitude)."""
        rows = np.flatnonzero(self.training)
        total = sum(self.archive.fields[r].sum(0, dtype=float) for r in np.array_split(rows, 64))
        return torch.from_numpy(total / len(rows)).float()


@dataclass
class Position:
    """How far training has come."""

    phase: int = 0
    update: int = 0
    best: float = math.inf
    stale: int = 0
    history: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """What one update reports."""

    phase: int
    update: int
    loss: float
    validation: float | None
    samples_per_second: float


class Trainer:
    """Trains a network in place, and keeps the moving average of its weights in `average`.

    Parameters
    ----------
    network : SFNO
    material : Material
    phases : tuple of Phase
    regime : Regime
    folder : pathlib.Path
        Where the position is saved; if one is there, training goes on from it.

    Raises
    ------
    ConfigurationError
        If the saved position belongs to other phases, regime or network, or there are too few
        consecutive fields for a phase.
    """

    def __init__(
        self,
        network: SFNO,
        material: Material,
        phases: tuple[Phase, ...],
        regime: Regime,
        folder: Path,
    ) -> None:
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.material, self.phases, self.regime = material, phases, regime
        self.folder = Path(folder)
        self.position = Position()
        self._fields = torch.from_numpy(material.archive.fields)
        self._climatology = material.climatology()
        self._noise = LatentNoise(network.config) if network.config.latents else None
        self._optimizer = self._fresh_optimizer()
        self._check_phases()
        if (self.folder / "position.json").is_file():
            self._restore()

    def run(self) -> Iterator[Progress]:
        """Train to the end, yielding after every update."""
        while self.position.phase < len(self.phases):
            yield from self._run_phase(self.phases[self.position.phase])
            self.network.load_state_dict(self.average.state_dict())
            self._optimizer = self._fresh_optimizer()
            self.position = Position(self.position.phase + 1, history=self.position.history)
            self.save()

    def _run_phase(self, phase: Phase) -> Iterator[Progress]:
        position, regime = self.position, self.regime
        loss = self._loss(phase)
        starts = self._starts(self.material.training, phase)
        began, samples = time.perf_counter(), 0
        while position.update < phase.updates and position.stale < regime.patience:
            value = self._update(phase, loss, self._cases(starts, phase, position.update))
            position.update += 1
            samples += phase.batch * phase.steps * phase.members
            validation = None
            if position.update % regime.validate_every == 0:
                validation = self._validate(phase, loss)
            if position.update % regime.save_every == 0:
                self.save()
            speed = samples / (time.perf_counter() - began)
            yield Progress(position.phase, position.update, value, validation, speed)

    def _update(self, phase: Phase, loss: Loss, cases: np.ndarray) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = phase.rate(self.position.update)
        key = Key(self.regime.seed) / "update" / self.position.phase / self.position.update
        self._optimizer.zero_grad(set_to_none=True)
        value = self._chain(self.network, phase, loss, cases, key)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.regime.clip)
        self._optimizer.step()
        self._follow()
        return float(value.detach())

    def _follow(self) -> None:
        """Move the average towards the weights; in the first phase it forgets its start faster."""
        decay = self.regime.averaging
        if self.position.phase == 0:
            decay = min(decay, (1 + self.position.update) / (10 + self.position.update))
        with torch.no_grad():
            pairs = list(self.average.parameters()), list(self.network.parameters())
            torch._foreach_lerp_(*pairs, 1 - decay)

    def _chain(
        self, network: SFNO, phase: Phase, loss: Loss, cases: np.ndarray, key: Key
    ) -> torch.Tensor:
        """Loss of a rollout from these rows, a weighted mean over its steps."""
        scales = self.material.normalisation
        unit = scales.tendency_std[:, None, None]
        members, fields = phase.members, self._fields[cases]
        fields = fields.repeat(members, 1, 1, 1)
        total, weights = torch.zeros(()), 0.0
        for step in range(1, phase.steps + 1):
            noise = self._noise and self._noise.draw(key / step, tuple(range(len(fields))))
            fields = scales.advance(fields, network(scales.normalise(fields), noise))
            truth = (self._fields[cases + step] - self._climatology) / unit
            forecast = (fields - self._climatology) / unit
            weight = step**-phase.lead_decay
            total = total + weight * loss(forecast.unflatten(0, (members, -1)), truth)
            weights += weight
        return total / weights

    def _validate(self, phase: Phase, loss: Loss) -> float:
        """Loss of the averaged weights on fixed cases; keeps track of the best."""
        starts = self._starts(self.material.validation, phase)
        chosen = np.linspace(0, len(starts) - 1, self.regime.validation_cases).astype(int)
        cases = np.split(starts[chosen], range(phase.batch, len(chosen), phase.batch))
        key = Key(self.regime.seed) / "validation" / self.position.phase
        with torch.inference_mode():
            values = [
                float(self._chain(self.average, phase, loss, rows, key / number)) * len(rows)
                for number, rows in enumerate(cases)
            ]
        value = sum(values) / len(chosen)
        position = self.position
        position.stale = 0 if value < position.best else position.stale + 1
        position.best = min(position.best, value)
        position.history.append([position.phase, position.update, value])
        return value

    def _cases(self, starts: np.ndarray, phase: Phase, update: int) -> np.ndarray:
        """Rows of this update: batches of a fresh permutation every epoch."""
        per_epoch = len(starts) // phase.batch
        epoch, batch = divmod(update, per_epoch)
        key = Key(self.regime.seed) / "order" / self.position.phase / epoch
        order = key.generator().permutation(len(starts))
        return starts[order[batch * phase.batch : (batch + 1) * phase.batch]]

    def _loss(self, phase: Phase) -> Loss:
        grid = self.material.archive.grid
        if phase.loss == "squared-error":
            return SquaredError(grid)
        if phase.loss == "almost-fair-crps":
            return AlmostFairCRPS(grid)
        preserving = AmplitudePreservingError(grid, self.network.config.degrees - 1)
        if phase.loss == "amplitude-preserving":
            return preserving
        return Sum(((1.0, preserving), (_VARIANCE_WEIGHT, VarianceError(grid))))

    def _starts(self, rows: np.ndarray, phase: Phase) -> np.ndarray:
        return self.material.archive.starts(rows, phase.steps, self.material.timestep)

    def _check_phases(self) -> None:
        for number, phase in enumerate(self.phases):
            if phase.members > 1 and self._noise is None:
                raise ConfigurationError(f"phase {number}: members > 1 need latent noise")
            if phase.loss == "almost-fair-crps" and phase.members < 2:
                raise ConfigurationError(f"phase {number}: {phase.loss} needs members >= 2")
            for what in ("training", "validation"):
                found = len(self._starts(getattr(self.material, what), phase))
                if found < phase.batch:
                    raise ConfigurationError(
                        f"phase {number}: {found} {what} cases of {phase.steps} consecutive steps, "
                        f"but a batch takes {phase.batch}"
                    )

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.network.parameters(),
            lr=1.0,
            betas=(0.9, 0.98),
            weight_decay=self.regime.weight_decay,
            foreach=True,
        )

    # The position on disk ---------------------------------------------------------------------

    def save(self) -> None:
        """Write weights, average, optimiser and position; a reader sees the old or the new."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        name = f"position-{self.position.phase}-{self.position.update}.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, self.folder / name)
        content = asdict(self.position) | {"tensors": name, "plan": self._plan()}
        partial = self.folder / "position.json.partial"
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(self.folder / "position.json")
        for old in self.folder.glob("position-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _restore(self) -> None:
        file = self.folder / "position.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("plan") != self._plan():
            raise ConfigurationError(
                f"{file}: was saved under other settings; remove the folder to start afresh"
            )
        tensors = load_file(self.folder / content.pop("tensors"))
        self.position = Position(**content)
        for name, module in (("network", self.network), ("average", self.average)):
            module.load_state_dict(_below(tensors, name))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _below(tensors, "optimizer").items():
            index, moment = name.split(".")
            state.setdefault(int(index), {})[moment] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _plan(self) -> dict:
        """What must not change between a run and its resumption, as JSON would give it back."""
        plan = {
            "phases": [asdict(phase) for phase in self.phases],
            "regime": asdict(self.regime),
            "network": asdict(self.network.config),
            "rows": [int(self.material.training.sum()), int(self.material.validation.sum())],
        }
        return json.loads(json.dumps(plan))


def _below(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
