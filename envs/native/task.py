"""Native environments: three pure functions over a struct of tensors, made into a VectorEnv here.

A task says how episodes begin, go on and are seen. This file does the rest for every one of them: automatic
restarts, time limits, seeds, checkpoints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from coordination import rng, tree
from envs.base import Step, View, check_action
from envs.render.scene import Scene
from envs.spec import AgentSpec

S = TypeVar("S")


class Task(ABC, Generic[S]):
    """The rules of a native environment, free of any state: ``S`` is a struct of tensors ``[B, ...]``.

    Attributes:
        agents: Who takes part.
        horizon: Steps after which an episode is truncated; None for no limit.
        ends_early: Whether an episode can end before the horizon: it does once nobody is left. Where it cannot, all
            copies restart together at the horizon, nothing has to be asked of the device, and agents may come and go
            meanwhile, all of them at once too: a slot that one has left may be filled again after a view.
        device: Where :class:`NativeEnv` put the task last; the tensors at hand say it too.
    """

    agents: AgentSpec
    horizon: int | None = None
    ends_early: bool = True
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def initial(self, generator: torch.Generator, n: int) -> S:
        """States of ``n`` fresh episodes, on the device of the generator."""

    def restart(self, state: S, generator: torch.Generator, n: int) -> S:
        """States of ``n`` fresh episodes to follow those of the same number of copies in ``state``.

        A task whose rules change over training, such as a curriculum, carries its progress over here.
        """
        return self.initial(generator, n)

    @abstractmethod
    def advance(self, state: S, action: Tensor, generator: torch.Generator) -> tuple[S, Tensor, Tensor]:
        """One step: ``action [B, N, A]`` to the next state, ``reward [B, N]`` and ``terminated [B, N]``.

        Changes nothing in place. Slots without a living agent get no reward, whatever their action holds.
        """

    @abstractmethod
    def view(self, state: S) -> View:
        """What the agents see in ``state``, ``[B, N, ...]``.

        An agent that terminated is not alive any more; only at the end of a whole episode may a view leave that open.
        """

    def info(self, state: S) -> dict[str, Tensor]:
        """Quantities of the state just reached, ``[B]`` or ``[B, N]``, named in ``agents.info``."""
        return {}

    def factors(self, state: S) -> Tensor | None:
        """``[B, F]`` terms whose sum is the team reward of the step that led here, scopes in ``agents.factor_scopes``.

        None where the reward does not factorise.
        """
        return None

    def cost(self, state: S) -> Tensor | None:
        """``[B, N]`` costs of the step that led here, for constrained problems; None where there are none."""
        return None

    def scene(self, state: S) -> Scene | None:
        """Where everything is, for pictures; None where agents have no places, and links alone are drawn."""
        return None


class NativeEnv(Generic[S]):
    """B copies of a task as a VectorEnv.

    Args:
        task: The rules.
        num_envs: Number of copies B.
        device: Where states live.
        seed: Root seed until :meth:`reset` gives another.

    Raises:
        ValueError: If there is no copy, or the task's horizon is below 1.
    """

    def __init__(self, task: Task[S], num_envs: int, device: torch.device | str = "cpu", seed: int = 0) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: must be at least 1, got {num_envs}")
        if task.horizon is not None and task.horizon < 1:
            raise ValueError(f"horizon of {type(task).__name__}: must be at least 1, got {task.horizon}")
        self.task, self.num_envs, self.device = task, num_envs, torch.device(device)
        task.device = self.device
        self.agents = task.agents
        self._generator = rng.generator(seed, "env", device=self.device)
        self._state: S | None = None
        self._reached: S | None = None  # the state that the last step led to, of an episode that ended too
        self._closed = False
        self._together = 0  # steps since all copies restarted, where they do so together
        shape = (num_envs, self.agents.num_agents)
        self._clock = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._never = torch.zeros(shape, dtype=torch.bool, device=self.device)
        self._no_copy = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        passive = torch.tensor([group.action is None for group in task.agents.groups for _ in range(group.size)])
        self._passive = passive.to(self.device) if bool(passive.any()) else None

    def reset(self, seed: int | None = None) -> View:
        """Start every copy anew; without a seed the current stream goes on."""
        if self._closed:
            raise RuntimeError("reset: the environment is closed; make a new one")
        if seed is not None:
            self._generator = rng.generator(seed, "env", device=self.device)
        self._state = self._reached = self.task.initial(self._generator, self.num_envs)
        self._clock = torch.zeros_like(self._clock)
        self._together = 0
        return self._view(self._state)

    def step(self, action: Tensor) -> Step:
        """Advance every copy; those whose episode ends restart at once."""
        if self._state is None:
            missing = "the environment is closed; make a new one" if self._closed else "call reset first"
            raise RuntimeError(f"step: {missing}")
        check_action(action, self.agents, self.num_envs)
        state, reward, terminated = self.task.advance(self._state, action, self._generator)
        self._reached = state
        beside = {"info": self.task.info(state), "factors": self.task.factors(state), "cost": self.task.cost(state)}
        step = self._together_step if not self.task.ends_early else self._staggered_step
        return step(state, reward, terminated, beside)

    def scene(self) -> Scene | None:
        """Where everything is in the states just reached, in the last ones of episodes that ended; for pictures.

        None where agents have no places.

        Raises:
            RuntimeError: Before the first reset.
        """
        if self._reached is None:
            raise RuntimeError("scene: call reset first")
        return self.task.scene(self._reached)

    def _view(self, state: S) -> View:
        """The task's view; where it says nothing of who acts, passive groups do not."""
        view = self.task.view(state)
        if self._passive is None or view.acts is not None:
            return view
        return replace(view, acts=view.alive & ~self._passive)

    def _together_step(self, state: S, reward: Tensor, terminated: Tensor, beside: dict[str, Any]) -> Step:
        """Every copy is at the same step of its episode, so the host knows when all of them restart."""
        self._together += 1
        next_view = self._view(state)
        if self.task.horizon is None or self._together < self.task.horizon:
            self._state = state
            return Step(next_view, next_view, reward, terminated, self._never, self._no_copy, **beside)
        self._state, self._together = self.task.restart(state, self._generator, self.num_envs), 0
        truncated = next_view.alive & ~terminated
        return Step(self._view(self._state), next_view, reward, terminated, truncated, ~self._no_copy, **beside)

    def _staggered_step(self, state: S, reward: Tensor, terminated: Tensor, beside: dict[str, Any]) -> Step:
        """Copies end when they like; on an accelerator fresh states are drawn for all, so that nothing waits for it."""
        self._clock = self._clock + 1
        next_view = self._view(state)
        timeout = self._never if self.task.horizon is None else (self._clock >= self.task.horizon).unsqueeze(-1)
        truncated = timeout & next_view.alive & ~terminated
        out = terminated | truncated | ~next_view.alive
        over = (out if self._passive is None else out | self._passive).all(-1)
        if self.device.type == "cpu":
            ended = over.nonzero().squeeze(1)
            if not len(ended):
                self._state = state
                return Step(next_view, next_view, reward, terminated, truncated, over, **beside)
            fresh = self.task.restart(tree.index(state, ended), self._generator, len(ended))
            self._state = tree.map(lambda x, new: x.index_copy(0, ended, new), state, fresh)
        else:
            fresh = self.task.restart(state, self._generator, self.num_envs)
            self._state = tree.where(over, fresh, state)
        self._clock = torch.where(over, 0, self._clock)
        return Step(self._view(self._state), next_view, reward, terminated, truncated, over, **beside)

    def state_dict(self) -> dict[str, Any]:
        """State, clocks and generator; tensors are shared with the environment, which never changes them in place.

        Raises:
            RuntimeError: Before the first reset.
        """
        if self._state is None:
            raise RuntimeError("state_dict: call reset first")
        return {
            "state": tree.pack(self._state),
            "clock": self._clock,
            "together": self._together,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> View:
        """Restore :meth:`state_dict`; returns the current view.

        Raises:
            ValueError: If the saved state has another form, number of copies, or kind of device.
        """
        like = self._state if self._state is not None else self.task.initial(self._generator, self.num_envs)
        restored = tree.unpack(like, state["state"])
        generator = state["generator"].cpu()
        if generator.shape != self._generator.get_state().shape:
            raise ValueError(f"saved generator: of another kind of device than this environment's, {self.device.type}")
        self._state = self._reached = restored
        self._clock = state["clock"].to(self.device)
        self._together = int(state["together"])
        self._generator.set_state(generator)
        return self._view(restored)

    def close(self) -> None:
        """Let go of the state; the environment takes no further steps."""
        self._state, self._reached, self._closed = None, None, True
