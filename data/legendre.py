"""Orthonormal associated Legendre functions, with the Condon-Shortley phase, by torch-harmonics.

torch-harmonics takes seconds to import, longer than all else that a resumed run does: it is
imported where a network or a field of noise is first built.
"""

from __future__ import annotations

import torch


def legendre_functions(count: int, sine: torch.Tensor) -> torch.Tensor:
    """Functions of degrees and orders below `count` at these sines of latitude.

    Returns
    -------
    torch.Tensor
        (m, l, latitude), float64; zero for l < m.
    """
    from torch_harmonics.legendre import legpoly

    return legpoly(count, count, sine, norm="ortho", inverse=False, csphase=True)


def legendre_slopes(count: int, colatitude: torch.Tensor) -> torch.Tensor:
    """What the gradients of the functions of degrees and orders below `count` are made of.

    Returns
    -------
    torch.Tensor
        (2, m, l, latitude), float64: the derivative by the colatitude, in radians, and m times
        the function over the sine of the colatitude.
    """
    from torch_harmonics.legendre import dlegpoly

    return dlegpoly(count, count, colatitude, norm="ortho", csphase=True)
