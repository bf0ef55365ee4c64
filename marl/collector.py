"""Collector: play the policy in the environment for T steps and hand over one Batch."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from coordination import tree
from envs.base import Step, VectorEnv, View
from marl.batch import Batch
from marl.networks.policy import Policy


class Collector:
    """Owns the running episodes: the environment, the current view and the generator of actions.

    Storage is allocated once and reused, so a Batch is valid until the next :meth:`collect`.

    Args:
        env: B copies of an environment.
        policy: Who acts; read, never changed.
        generator: Source of the sampled actions, on the environment's device.
    """

    def __init__(self, env: VectorEnv, policy: Policy, generator: torch.Generator) -> None:
        self.env, self.policy, self.generator = env, policy, generator
        self.view: View | None = None
        self.start = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        shape = env.num_envs, env.agents.num_agents
        self.hidden = policy.trunk.initial(shape, env.device) if policy.state_dim else None
        self._storage: dict[int, dict[str, Any]] = {}

    def reset(self, seed: int) -> None:
        """Begin fresh episodes."""
        self.view = self.env.reset(seed)
        self.start = torch.ones_like(self.start)
        if self.hidden is not None:
            shape = self.hidden.shape[:-1]
            self.hidden = self.policy.trunk.initial(shape, self.env.device, self.generator)

    @torch.no_grad()
    def collect(self, steps: int) -> Batch:
        """Take ``steps`` steps in every copy, ``[T, B]`` in all."""
        if self.view is None:
            raise RuntimeError("collect: call reset first")
        store = self._allocate(steps)
        finals: list[tuple[View, Tensor]] = []
        besides: list[dict[str, Any]] = []
        for t in range(steps):
            _write(store["view"], t, self.view)
            store["start"][t] = self.start
            if self.hidden is not None:
                store["hidden"][t] = self.hidden
            action, log_prob, self.hidden = self.policy.act(self.view, self.hidden, self.start, self.generator)
            step = self.env.step(self.policy.head.env_action(action))
            store["action"][t] = action
            store["log_prob"][t] = log_prob
            for name in ("reward", "terminated", "truncated"):
                store[name][t] = getattr(step, name)
            if step.next_view is not step.view:
                finals.append(_finals(step, t))
            besides.append({"info": step.info, "cost": step.cost, "factors": step.factors})
            self.view, self.start = step.view, step.over
        _write(store["view"], steps, self.view)
        store["start"][steps] = self.start
        if self.hidden is not None:
            store["hidden"][steps] = self.hidden
        final = tree.cat([view for view, _ in finals]) if finals else None
        final_at = torch.cat([at for _, at in finals]) if finals else None
        return Batch(**store, final=final, final_at=final_at, **tree.stack(besides))

    def _allocate(self, steps: int) -> dict[str, Any]:
        if steps not in self._storage:
            assert self.view is not None
            env, device = self.env, self.env.device
            shape = (steps, env.num_envs, env.agents.num_agents)
            kind = torch.int64 if env.agents.discrete else torch.float32
            hidden = self.hidden
            remembered = {} if hidden is None else {"hidden": hidden.new_zeros(steps + 1, *hidden.shape)}
            self._storage = {
                steps: remembered
                | {
                    "view": tree.map(lambda x: x.new_zeros(steps + 1, *x.shape), self.view),
                    "action": torch.zeros(*shape, env.agents.action_dim, dtype=kind, device=device),
                    "log_prob": torch.zeros(shape, device=device),
                    "reward": torch.zeros(shape, device=device),
                    "terminated": torch.zeros(shape, dtype=torch.bool, device=device),
                    "truncated": torch.zeros(shape, dtype=torch.bool, device=device),
                    "start": torch.zeros(steps + 1, env.num_envs, dtype=torch.bool, device=device),
                }
            }
        return self._storage[steps]

    def state_dict(self) -> dict[str, Any]:
        """The environment's state, where its episodes begin, what the agents remember, and the generator."""
        state = {"env": self.env.state_dict(), "start": self.start, "generator": self.generator.get_state()}
        return state if self.hidden is None else {**state, "hidden": self.hidden}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from :meth:`state_dict`."""
        self.view = self.env.load_state_dict(state["env"])
        self.start = cast(Tensor, state["start"]).to(self.env.device)
        lost = getattr(self.env, "lost", None)
        self.start = self.start if lost is None else self.start | lost  # their old episodes are gone
        self.generator.set_state(state["generator"].cpu())
        if self.hidden is not None:
            self.hidden = cast(Tensor, state["hidden"]).to(self.env.device)


def _write(storage: View, t: int, view: View) -> None:
    tree.map(lambda to, x: to[t].copy_(x), storage, view)


def _finals(step: Step, t: int) -> tuple[View, Tensor]:
    """The true successors that differ from the next stored view, and their positions ``t * B + b``.

    On the CPU just those copies; elsewhere all of them, since counting would wait for the device. A copy that did not
    end is stored with its own successor, which changes nothing.
    """
    copies = torch.arange(step.over.numel(), device=step.over.device)
    if step.over.device.type == "cpu":
        copies = copies[step.over | step.truncated.any(-1)]
        return tree.index(step.next_view, copies), copies + t * step.over.numel()
    return step.next_view, copies + t * step.over.numel()
