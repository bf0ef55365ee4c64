"""What public functions take as numbers: tensors of any device, and numpy arrays, which become tensors on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray


def as_float(x: Array | Sequence) -> Tensor:
    """A tensor of floating-point numbers: integers become the default type, the others stay.

    >>> as_float(np.array([1, 2]))
    tensor([1., 2.])
    """
    x = torch.as_tensor(x)
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def as_numpy(x: Array | Sequence) -> np.ndarray:
    """Numbers as a float64 array for libraries of the CPU; what lies on a device is copied, which waits for it.

    >>> as_numpy(torch.tensor([1, 2]))
    array([1., 2.])
    """
    return torch.as_tensor(x).detach().double().cpu().numpy()
