"""Groups of agents that share no weights: who they are, which rows of stacked weights are theirs, and moving those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from marl.algorithms.base import Optimiser
from marl.networks.inputs import Inputs
from marl.networks.policy import Policy

Rows = tuple[nn.Parameter, slice]  # rows of a parameter that belong to one group


class GroupOptimiser(Optimiser):
    """Adam whose policy weights stay stacked, with moments and step counts of each group's own.

    Attributes:
        group: The one whose weights move; those of the others stay as they are, bit for bit.

    Args:
        rows: For each group, its rows of every parameter of the policy.
        critic: Parameters of the critic.
        learning_rate, max_grad_norm: As for :class:`Optimiser`.
    """

    group: int = 0

    def __init__(
        self,
        rows: Sequence[Sequence[Rows]],
        critic: Iterable[nn.Parameter],
        learning_rate: Mapping[str, float],
        max_grad_norm: float | None,
    ) -> None:
        self.rows = rows
        self.parts = [[nn.Parameter(whole.data[where]) for whole, where in group] for group in rows]  # of one storage
        groups = {"policy": [part for group in self.parts for part in group], "critic": critic}
        super().__init__(groups, learning_rate, max_grad_norm)

    def _backward(self, loss: Tensor) -> None:
        for whole, _ in self.rows[self.group]:
            whole.grad = None
        super()._backward(loss)
        for (whole, where), part in zip(self.rows[self.group], self.parts[self.group], strict=True):
            part.grad = None if whole.grad is None else whole.grad[where]


def independent_groups(policy: Policy, most: int) -> Tensor:
    """``[G, N]`` bool: agents in groups that have no weight in common, more than ``most`` dealt evenly among as many.

    Raises:
        ValueError: If agents with sets of weights of their own have one in common all the same.
    """
    label = torch.arange(policy.agents.num_agents)
    owners = list(_owners(policy, len(label)))
    while True:  # agents with a weight in common take the lowest of their numbers, until none changes any more
        before = label
        for _, _, owner in owners:
            if owner is not None:
                label = torch.full_like(label, len(label)).scatter_reduce(0, owner, label, "amin")[owner]
        if torch.equal(label, before):
            break
    kinds = label.unique()
    common = [path for path, _, owner in owners if owner is None]
    if common and len(kinds) > 1:
        raise ValueError(
            f"sharing: the policy's {common[0]} is one for all agents, so that no group of them can be updated alone; "
            "choose mlp, mean or sum layers, or sharing=all, which is mappo"
        )
    return torch.stack([torch.isin(label, part) for part in kinds.tensor_split(min(most, len(kinds)))])


def rows_of(policy: Policy, members: Tensor) -> list[Rows]:
    """The rows of every parameter of a policy that a group uses, ``members [N]`` bool.

    Raises:
        ValueError: If they do not lie side by side.
    """
    if members.all():
        return [(p, slice(None)) for p in policy.parameters()]
    found = []
    for path, parameter, owner in _owners(policy, len(members)):
        assert owner is not None
        used = owner[members].unique()
        first, last = int(used[0]), int(used[-1])
        if last - first + 1 != len(used):
            raise ValueError(
                f"sharing: the rows of the policy's {path} that one group uses do not lie side by side; list agents "
                "of one group side by side, or choose another identity"
            )
        found.append((parameter, slice(first, last + 1)))
    return found


def _owners(
    module: nn.Module, num_agents: int, path: str = "", inherited: Tensor | None = None
) -> Iterator[tuple[str, nn.Parameter, Tensor | None]]:
    """Every parameter by its path, with the row ``[N]`` of it that each agent uses; None where it has no such rows."""
    owner = _owner(module, num_agents, inherited)
    for name, parameter in module.named_parameters(recurse=False):
        stacked = owner is not None and len(owner) == num_agents and int(owner.max()) + 1 == parameter.shape[0]
        yield f"{path}{name}", parameter, owner if stacked else None
    for name, child in module.named_children():
        yield from _owners(child, num_agents, f"{path}{name}.", owner)


def _owner(module: nn.Module, num_agents: int, inherited: Tensor | None) -> Tensor | None:
    if isinstance(module, Inputs):
        return torch.arange(num_agents)  # of its identity
    owner = getattr(module, "owner", getattr(getattr(module, "sharing", None), "owner", None))
    return inherited if owner is None else torch.as_tensor(owner).cpu()
