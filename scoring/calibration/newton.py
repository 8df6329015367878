"""Many small smooth problems at a time, by damped Newton steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

_START = 1e-3
_LARGEST = 1e12


def minimise(
    objective: Callable[..., torch.Tensor],
    start: torch.Tensor,
    data: tuple[torch.Tensor, ...],
    iterations: int = 60,
    tolerance: float = 1e-10,
) -> torch.Tensor:
    """Parameters at which the objective of each problem is least, (problem, parameter).

    Steps of Levenberg and Marquardt (1963, doi:10.1137/0111030): the Hessian with its diagonal
    strengthened until a step does not raise the objective.

    Parameters
    ----------
    objective : callable
        Of the parameters of one problem, (parameter,), and its data; gives a number.
    start : torch.Tensor
        (problem, parameter), float64.
    data : tuple of torch.Tensor
        Each (problem, ...).
    iterations : int
        At most.
    tolerance : float
        Stop when no objective falls by more than this part of itself.
    """
    value = torch.func.vmap(objective)
    gradient = torch.func.vmap(torch.func.grad(objective))
    # Reverse over reverse: forward mode compiles TorchScript, which warns that it is old.
    hessian = torch.func.vmap(torch.func.jacrev(torch.func.grad(objective)))
    at = start.clone()
    lowest = value(at, *data)
    damping = torch.full_like(lowest, _START)
    for _ in range(iterations):
        slope, curvature = gradient(at, *data), hessian(at, *data)
        # Where the objective is not convex, the diagonal alone still gives a way down.
        diagonal = torch.diagonal(curvature, dim1=1, dim2=2).abs().clamp_min(1e-8)
        shifted = curvature + torch.diag_embed(diagonal * damping[:, None])
        step, failed = torch.linalg.solve_ex(shifted, slope[..., None])
        there = at - torch.nan_to_num(step[..., 0])
        found = value(there, *data)
        better = (found < lowest) & (failed == 0)
        gain = torch.where(better, lowest - found, 0.0)
        at = torch.where(better[:, None], there, at)
        damping = torch.where(better, damping / 5, damping * 7).clamp(1e-9, _LARGEST)
        done = (gain <= tolerance * lowest.abs()) & (better | (damping > 1e6))
        lowest = torch.where(better, found, lowest)
        if bool(done.all()):
            break
    return at
