"""ParallelVectorEnv: copies of any PettingZoo environment as tensors, in process or in workers.

Agents lie on one axis, grouped by equal spaces and name stem (:mod:`envs.door.layout`). Every view is made of fresh
tensors (0.1 ms a step of 128 copies), so it stays valid for as long as someone holds it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coordination import rng
from envs.base import Step, View, check_action
from envs.door.actions import ActionRules
from envs.door.copies import Copies, build_copies, global_generators_kept
from envs.door.layout import Layout, Teams
from envs.door.pool import IN_PROCESS, Pool, Workers
from envs.door.source import Source
from envs.graphs import GraphSetting, GraphSource


class ParallelVectorEnv:
    """B copies of a PettingZoo Parallel environment as a VectorEnv.

    A copy whose agents are all over restarts at once. Every reset of copy c for its episode e is seeded by
    (root seed, c, e), whatever the number of workers.

    An environment cannot be asked for its state, so a checkpoint holds the seeds and the actions of the running
    episodes, and restoring replays them. Where the replayed observation differs, the copy starts a new episode and
    :attr:`resume_exact` is False.

    Attributes:
        resume_exact: Whether all copies went on exactly when a state was last restored.
        lost: ``[B]`` bool: copies that did not then, and began a new episode.
        layout: Where each agent stands on the axis, and how its values are read and written.
        graph_source: What makes the graphs of its views.

    Args:
        source: Where copies come from.
        num_envs: Number of copies B.
        device: Where the tensors shall live; the copies themselves run on the CPU.
        seed: Root seed until :meth:`reset` gives another.
        workers: Processes that share the copies, and what to do when one falls; 0 steps them in this process.
        graph: Who hears whom, one of the settings in :mod:`envs.graphs`.
        use_state: Whether the environment's own ``state()`` becomes ``View.state``.
        teams: Who wins together, as in :meth:`envs.door.layout.Layout.with_teams`.

    Raises:
        EnvError: If the environment fails.
        UnsupportedSpaceError: If one of its spaces has no flat form.
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        source: Source,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        *,
        seed: int = 0,
        workers: Workers = IN_PROCESS,
        graph: GraphSetting = None,
        use_state: bool = False,
        teams: Teams = None,
    ) -> None:
        if num_envs < 1 or (source.single and num_envs > 1):
            at_most = "exactly 1 of an environment object; give a factory for more" if source.single else "at least 1"
            raise ValueError(f"num_envs: must be {at_most}, got {num_envs}")
        if workers.count:
            source.to_json()  # refuses what cannot be sent before anything is built
        self.num_envs, self.device, self.resume_exact = num_envs, torch.device(device), True
        with global_generators_kept():
            envs = build_copies(source, seed, 0, 1 if workers.count else num_envs)
            layout = Layout.probe(envs[0], use_state, teams)
        if len({id(env) for env in envs}) < len(envs):
            raise ValueError(f"{source.name}: made the same environment object twice; it must make a new one each time")
        self.layout, self.agents = layout, layout.agents
        self._host: Copies | Pool
        if workers.count:
            envs[0].close()
            self._host = Pool(source, layout, num_envs, workers, seed)
        else:
            arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.shapes(num_envs).items()}
            self._host = Copies(envs, layout, arrays)
        self._arrays = self._host.arrays
        self._arrays["seed"][0] = seed
        self._history: deque[np.ndarray] = deque()  # actions [B, N, A] back to the start of the longest running episode
        self._restarting = isinstance(self._host, Pool) and self._host.settings.on_crash == "restart"
        self._started = self._closed = False
        self._rules = ActionRules(self.agents)
        self._shown: dict[str, np.ndarray] = {}  # what the agents saw last
        self.graph_source = GraphSource(graph, self, rng.derive(seed, "graph"))

    @property
    def restarts(self) -> int:
        """How often a worker fell and was started again."""
        return self._host.restarts

    @property
    def counters(self) -> dict[str, Tensor | int]:
        """What has happened so far: ``restarts`` of workers where they are restarted, ``links_dropped`` by a radius."""
        found: dict[str, Tensor | int] = self.graph_source.counters
        return found | {"restarts": self.restarts} if self._restarting else found

    @property
    def last_crash(self) -> str | None:
        """What happened to the worker that fell last, or None."""
        return self._host.last_crash

    @property
    def first(self) -> Any | None:
        """The first copy itself, to draw it; None where copies are in workers."""
        return self._host.envs[0] if isinstance(self._host, Copies) else None

    def reset(self, seed: int | None = None) -> View:
        """Start every copy anew; without a seed each goes on to its next episode."""
        self._check_open("reset")
        if seed is not None:
            self._arrays["seed"][0] = seed
            self._arrays["episode"][:] = 0
        elif self._started:
            self._arrays["episode"] += 1
        self._restart(np.ones(self.num_envs, dtype=bool))
        self._history.clear()
        return self._view()

    def step(self, action: Tensor) -> Step:
        """Advance every copy; those whose agents are all over restart at once.

        Raises:
            ValueError: If the action has another shape, or holds a choice that does not exist or is masked.
            TypeError: If it has another dtype.
            RuntimeError: Before the first reset, and after the environment was closed.
            EnvError: If the environment fails.
        """
        self._check_open("step")
        if not self._started:
            raise RuntimeError("step: call reset first")
        check_action(action, self.agents, self.num_envs)
        taken = action.detach().cpu().numpy().astype(self._arrays["action"].dtype)
        acting = self._arrays["alive"] & self._arrays.get("acts", True)
        self._rules.check(taken, acting, self._arrays.get("mask"))
        self._advance(taken, True)
        a = self._arrays
        view = self._view()
        return Step(
            view=view,
            next_view=self._successor() if a["differs"].any() else view,
            reward=self._tensor("reward"),
            terminated=self._tensor("terminated"),
            truncated=self._tensor("truncated"),
            over=self._tensor("over"),
        )

    def state_dict(self) -> dict[str, Any]:
        """Seeds, episode numbers, the actions of the running episodes, and what was seen last as a hash."""
        if not self._started:
            raise RuntimeError("state_dict: call reset first")
        none = np.zeros((0, *self._arrays["action"].shape), self._arrays["action"].dtype)
        actions = np.stack(self._history) if self._history else none  # [L, B, N, A], running episodes end together
        return {
            "seed": int(self._arrays["seed"][0]),
            "episode": self._tensor("episode", torch.device("cpu")),
            "clock": self._tensor("clock", torch.device("cpu")),
            "actions": torch.from_numpy(actions),
            "seen": torch.from_numpy(self._hash()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> View:
        """Restore :meth:`state_dict` by replaying the running episodes; returns the current view.

        Raises:
            ValueError: If the state belongs to another number of copies or other actions.
        """
        self._check_open("load_state_dict")
        actions, clock = state["actions"].cpu().numpy(), state["clock"].cpu().numpy()
        if actions.shape[1:] != self._arrays["action"].shape:
            raise ValueError(
                f"saved actions: expected [B, N, A] = {self._arrays['action'].shape}, got {actions.shape[1:]}; "
                "resume with the same num_envs and environment"
            )
        episode = state["episode"].cpu().numpy()
        self._arrays["seed"][0] = state["seed"]
        self._arrays["episode"][:] = episode
        self._restart(np.ones(self.num_envs, dtype=bool))
        self._history.clear()
        self._view()
        for t, action in enumerate(actions):
            self._advance(action, len(actions) - t <= clock)
        lost = (self._hash() != state["seen"].cpu().numpy()) | (self._arrays["clock"] != clock)
        self.lost = torch.from_numpy(lost).to(self.device)
        self.resume_exact = not lost.any()
        if lost.any():
            self._arrays["episode"][lost] = episode[lost] + 1
            self._restart(lost)
        return self._view()

    def close(self) -> None:
        """Close the copies and end their workers; nothing can be done with them afterwards."""
        if not self._closed:
            self._closed = True
            self._host.close()

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise RuntimeError(f"{what}: the environment is closed; make a new one")

    def _restart(self, which: np.ndarray) -> None:
        self._arrays["active"][:] = which
        self._host.reset()
        self._started = True

    def _advance(self, action: np.ndarray, which: np.ndarray | bool) -> None:
        self._arrays["action"][:] = action
        self._arrays["active"][:] = which
        episode = self._arrays["episode"].copy()
        lost = self._host.step()
        if lost is not None:
            self._cut(lost, episode)
        self._history.append(action.copy())
        while len(self._history) > self._arrays["clock"].max():
            self._history.popleft()

    def _cut(self, lost: np.ndarray, episode: np.ndarray) -> None:
        """Cut off copies whose worker fell during a step: what they saw last is the best known successor."""
        a = self._arrays
        a["reward"][lost] = 0
        a["terminated"][lost] = False
        a["truncated"][lost] = self._shown["alive"][lost]
        a["over"][lost] = a["differs"][lost] = True
        for name, array in self._shown.items():
            a[f"final_{name}"][lost] = array[lost]
        a["episode"][lost] = episode[lost] + 1
        self._restart(lost)

    def _tensor(self, name: str, device: torch.device | None = None) -> Tensor:
        return torch.from_numpy(self._arrays[name].copy()).to(device or self.device)

    def _view(self) -> View:
        self._shown = {name: self._arrays[name].copy() for name in self._seen()}
        return self._make_view(self._shown)

    def _successor(self) -> View:
        """The true successor: the view, but for the copies whose last observation was set aside."""
        differs = self._arrays["differs"]
        merged = {name: self._arrays[name].copy() for name in self._seen()}
        for name, array in merged.items():
            array[differs] = self._arrays[f"final_{name}"][differs]
        return self._make_view(merged)

    def _seen(self) -> list[str]:
        return [name for name in ("obs", "alive", "acts", "mask", "state") if name in self._arrays]

    def _make_view(self, arrays: dict[str, np.ndarray]) -> View:
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        obs, alive = tensors["obs"], tensors["alive"]
        graph = self.graph_source(obs, alive)
        return View(obs, alive, graph, tensors.get("state"), tensors.get("mask"), tensors.get("acts"))

    def _hash(self) -> np.ndarray:
        """``[B]`` int64: a hash of what the agents of each copy see."""
        rows = [self._arrays[name] for name in self._seen()]
        seen = [b"".join(row[b].tobytes() for row in rows) for b in range(self.num_envs)]
        digests = [hashlib.blake2b(text, digest_size=8).digest() for text in seen]
        return np.array([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=np.int64)
