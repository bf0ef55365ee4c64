"""Algorithm: what every learner is to the trainer, and the optimiser that keeps its parameter groups apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coordination.signals import SharedReward
from envs.base import View
from envs.spec import AgentSpec
from marl.batch import Batch
from marl.networks.inputs import Inputs
from marl.networks.policy import Policy


@dataclass(frozen=True)
class Setting:
    """What a learner is built for, apart from its own settings.

    Attributes:
        agents: Who learns.
        num_envs: Copies B of the environment.
        shared: Stages between raw rewards and the ones learned from.
        seed: Root seed; initial weights and minibatches have branches of their own.
        device: Where it learns.
    """

    agents: AgentSpec
    num_envs: int
    shared: SharedReward
    seed: int
    device: torch.device


class Algorithm(nn.Module, ABC):
    """Learns from batches; the trainer knows no more about it than this.

    Attributes:
        policy: Who acts.
        optimiser: Steps the parameter groups.
        generator: Source of every draw while learning (minibatches, dropped samples).
    """

    policy: Policy
    optimiser: Optimiser
    generator: torch.Generator

    @classmethod
    @abstractmethod
    def build(cls, config: Any, network: Any, setting: Setting) -> Algorithm:
        """A learner with fresh networks, from its settings and those of the networks."""

    @abstractmethod
    def learn(self, rollout: Batch) -> dict[str, Tensor]:
        """Improve the policy from one rollout; returns scalar metrics as tensors, none of them read yet."""

    def update_inputs(self, view: View) -> None:
        """Merge what was seen into the running moments of all networks that normalise their inputs."""
        for module in self.modules():
            if isinstance(module, Inputs):
                module.update(view)

    def schedule(self, progress: float) -> None:
        """Set everything that depends on the share of training behind us, ``progress`` in [0, 1]."""

    def training_state(self) -> dict[str, Any]:
        """Everything learning depends on: parameters, buffers, optimiser, generator."""
        return {
            "parameters": dict(self.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from :meth:`training_state`."""
        load_exactly(self, state["parameters"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Losses made inside send no gradient into the parameters of ``modules``, only through them."""
    parameters = [p for module in modules for p in module.parameters()]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def load_exactly(module: nn.Module, parameters: Mapping[str, Tensor], prefix: str = "") -> None:
    """Load the saved parameters and buffers whose names begin with ``prefix`` into ``module``, all of them.

    Raises:
        ValueError: If they belong to other networks or other agents.
    """
    saved = {name.removeprefix(prefix): x for name, x in parameters.items() if name.startswith(prefix)}
    own = module.state_dict()
    for name in sorted(set(own) | set(saved)):
        shapes = [tuple(d[name].shape) if name in d else None for d in (own, saved)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"saved parameter {prefix}{name}: expected shape {shapes[0]}, got {shapes[1]}; "
                "other networks, or agents with other spaces?"
            )
    module.load_state_dict(saved)


class Optimiser:
    """Adam over named, disjoint parameter groups, each with its own loss, step size and gradient clipping.

    Args:
        groups: Name to parameters.
        learning_rate: Name to step size.
        max_grad_norm: Gradients of each group are scaled down to this norm; None leaves them.
        epsilon: Adam's epsilon (Kingma and Ba 2015, arXiv:1412.6980).
    """

    def __init__(
        self,
        groups: Mapping[str, Iterable[nn.Parameter]],
        learning_rate: Mapping[str, float],
        max_grad_norm: float | None,
        epsilon: float = 1e-5,
    ) -> None:
        self.groups = {name: list(parameters) for name, parameters in groups.items()}
        self.learning_rate = dict(learning_rate)
        self.max_grad_norm = max_grad_norm
        named = [{"params": p, "lr": self.learning_rate[name]} for name, p in self.groups.items()]
        self._adam = torch.optim.Adam(named, eps=epsilon, fused=True)

    def step(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Descend every loss on its own group; returns each group's gradient norm before clipping."""
        self._adam.zero_grad(set_to_none=True)
        self._backward(torch.stack(list(losses.values())).sum())
        norms = {}
        for name in losses:
            gradients = [p.grad for p in self.groups[name] if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if self.max_grad_norm is not None:
                nn.utils.clip_grads_with_norm_(self.groups[name], self.max_grad_norm, norm)
            norms[f"grad_norm/{name}"] = norm
        self._adam.step()
        return norms

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    def scale_learning_rate(self, factor: float) -> None:
        """Set every group's step size to ``factor`` times its configured one."""
        for group, rate in zip(self._adam.param_groups, self.learning_rate.values(), strict=True):
            group["lr"] = rate * factor

    def state_dict(self) -> dict[str, Any]:
        """Moments and step counts, by parameter number."""
        return {str(i): dict(s) for i, s in self._adam.state_dict()["state"].items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        whole = self._adam.state_dict()
        whole["state"] = {int(i): dict(s) for i, s in state.items()}
        self._adam.load_state_dict(whole)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of the entries of ``x`` where ``mask`` holds; zero if there are none. The others get no gradient."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def mean_of_records(records: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of what several updates reported, by name; a name may be missing in some."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: torch.stack([r[name] for r in records if name in r]).mean() for name in names}
