"""Batch: what one iteration of collection hands to a learner."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from coordination import tree
from envs.base import View


@tree.struct
class Batch:
    """A rollout of T steps in B copies, or any selection of its transitions.

    A rollout stores every view once: ``view`` has T + 1 entries, and only where an episode was cut does the true
    successor differ from the next stored view; those few are kept in ``final``. See :meth:`successor`.

    Attributes:
        view: ``[T+1, B]`` views of a rollout; ``[M]`` in a selection of M states.
        action: ``[T, B, N, A]``.
        reward: ``[T, B, N]`` raw rewards; stages of a signal are applied by the algorithm.
        terminated, truncated: ``[T, B, N]`` bool, as in :class:`~envs.base.Step`.
        start: ``[T+1, B]`` bool: this view is the first of its episode.
        log_prob: ``[T, B, N]`` log-probability of the action under the policy that took it; zero where nobody chose.
        final: ``[R]`` true successors of the transitions listed in ``final_at``.
        final_at: ``[R]`` int64 positions ``t * B + b`` of those transitions.
        hidden: ``[T+1, B, N, H]`` recurrent state before each view, or None.
        cost: ``[T, B, N]`` costs of constrained problems, or None.
        factors: ``[T, B, F]`` factored team reward, or None.
        info: ``[T, B]`` or ``[T, B, N]`` tensors, as in Step.
    """

    view: View = tree.axes("")
    action: Tensor = tree.axes("N A")
    reward: Tensor = tree.axes("N")
    terminated: Tensor = tree.axes("N")
    truncated: Tensor = tree.axes("N")
    start: Tensor = tree.axes("")
    log_prob: Tensor | None = tree.axes("N", default=None)
    final: View | None = tree.axes("", default=None)
    final_at: Tensor | None = tree.axes("", default=None)
    hidden: Tensor | None = tree.axes("N H", default=None)
    cost: Tensor | None = tree.axes("N", default=None)
    factors: Tensor | None = tree.axes("F", default=None)
    info: dict[str, Tensor] = tree.axes("", default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of time steps T."""
        return self.reward.shape[0]

    @property
    def keep(self) -> Tensor:
        """``[T, B, N]`` bool: agents that chose at each step; losses count these alone."""
        return self.now().acting

    @property
    def cut(self) -> Tensor:
        """``[T, B, N]`` bool: no later step belongs to the same agent's episode."""
        return self.terminated | self.truncated | self.start[1:].unsqueeze(-1)

    @property
    def next_acting(self) -> Tensor:
        """``[T, B, N]`` bool: who chooses in the true successors."""
        return self.successor(self.view.acting, None if self.final is None else self.final.acting)

    def states(self) -> View:
        """The T views that were acted on, flattened to ``[T * B]``."""
        return tree.flatten(self.now())

    def successor(self, value: Tensor, final_value: Tensor | None) -> Tensor:
        """What holds in the true successors, ``[T, B, ...]``.

        Args:
            value: ``[T+1, B, ...]`` of the stored views.
            final_value: ``[R, ...]`` of ``final``; None where there are none.
        """
        return self.merge(value[1:], final_value)

    def merge(self, following: Tensor, final_value: Tensor | None) -> Tensor:
        """What holds in the true successors: ``following [T, B, ...]`` in the views stored next, or in ``final``."""
        if final_value is None or self.final_at is None:
            return following
        flat = following.flatten(0, 1).index_copy(0, self.final_at, final_value)
        return flat.view_as(following)

    def now(self) -> View:
        """The T views that were acted on, ``[T, B]``."""
        return tree.index(self.view, slice(0, self.steps))

    def later(self) -> View:
        """The T views stored next, ``[T, B]``; see :meth:`merge` for those that are not the true successors."""
        return tree.index(self.view, slice(1, None))

    def replace(self, **fields: object) -> Batch:
        """A copy with some fields changed."""
        return replace(self, **fields)
