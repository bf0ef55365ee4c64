"""EpisodeMeter: returns and lengths of finished episodes, per team and group, from raw rewards alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from envs.spec import AgentSpec
from marl.batch import Batch


class EpisodeMeter:
    """Follows the running episodes of B copies over rollouts: returns, lengths, and the environment's own quantities.

    Args:
        agents: Whose returns: of all teams where somebody learns, and of each team and group where there are several.
        num_envs: Number of copies B.
        device: Where rewards live.
    """

    def __init__(self, agents: AgentSpec, num_envs: int, device: torch.device) -> None:
        teams = torch.nn.functional.one_hot(torch.tensor(agents.team), agents.num_teams)
        groups = torch.nn.functional.one_hot(torch.from_numpy(agents.group_of).long(), len(agents.groups))
        self.names = [f"team_{i}" for i in range(agents.num_teams)] if agents.num_teams > 1 else []
        columns = [teams[:, agents.learning_teams].sum(1, keepdim=True)] + ([teams] if self.names else [])
        if len(agents.groups) > 1:
            self.names += [group.name for group in agents.groups]
            columns.append(groups)
        self._members = torch.cat(columns, 1).float().to(device)  # [N, C]
        self._added = [name for name, how in agents.info.items() if how != "last"]  # summed over the episode
        self._last = [name for name, how in agents.info.items() if how == "last"]
        self.running = torch.zeros(num_envs, self._members.shape[1] + len(self._added))
        self.length = torch.zeros(num_envs, dtype=torch.int64)
        self.agents = agents

    def update(self, batch: Batch) -> dict[str, float]:
        """Means over the episodes that ended in this rollout; empty if none did. Reads back from the device once."""
        columns, last, over, fresh = self._read(batch)
        self.running, self.length = self.running.masked_fill(fresh.unsqueeze(1), 0.0), self.length.masked_fill(fresh, 0)
        total = self.running + columns.cumsum(0)
        steps = torch.arange(1, batch.steps + 1).unsqueeze(1)
        length = self.length + steps
        copy, at = over.T.nonzero().T  # episodes in order of copy, then time
        ended, lengths = total[at, copy], length[at, copy]
        same = torch.cat([copy.new_zeros(1, dtype=torch.bool), copy[1:] == copy[:-1]])[: len(copy)]
        before, steps_before = ended.roll(1, 0), lengths.roll(1, 0)
        returns = ended - torch.where(same.unsqueeze(1), before, 0.0)
        lengths_own = lengths - torch.where(same, steps_before, 0)
        self.running, self.length = total[-1].clone(), length[-1].clone()
        final = (
            torch.cat([copy[1:] != copy[:-1], copy.new_ones(1, dtype=torch.bool)])[-len(copy) :] if len(copy) else same
        )
        self.running[copy[final]] -= ended[final]
        self.length[copy[final]] -= lengths[final]
        if not len(copy):
            return {}
        row = {"train/return": float(returns[:, 0].mean()), "train/episode_length": float(lengths_own.float().mean())}
        apart = returns[:, 1 : 1 + len(self.names)].mean(0)
        row |= {f"train/return/{name}": float(x) for name, x in zip(self.names, apart, strict=True)}
        sums = dict(zip(self._added, returns[:, 1 + len(self.names) :].unbind(1), strict=True))
        for name, how in self.agents.info.items():
            if how == "last":
                value = last[..., self._last.index(name)][over]
            else:
                value = {"sum": sums[name], "mean": sums[name] / lengths_own, "any": (sums[name] > 0).float()}[how]
            row[f"info/{name}"] = float(value.mean())
        return row

    def _read(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """On the CPU: what adds up ``[T, B, C]``, last info ``[T, B, L]``, ends ``[T, B]``, fresh copies ``[B]``.

        A copy is fresh where its first step begins an episode, however the one before ended: it may have been lost.
        """
        reward = torch.where(batch.view.alive[:-1], batch.reward, 0.0)  # an empty slot may hold anything
        info = [_per_copy(batch.info[name]) for name in (*self._added, *self._last)]
        ends = [batch.start[1:].float(), batch.start[0].float().expand(batch.steps, -1)]
        together = torch.cat([reward @ self._members, *(x.unsqueeze(-1) for x in (*info, *ends))], -1).cpu()
        width = self.running.shape[1]
        return together[..., :width], together[..., width:-2], together[..., -2] > 0, together[0, :, -1] > 0

    def state_dict(self) -> dict[str, Any]:
        """Returns and lengths so far of the running episodes."""
        return {"running": self.running, "length": self.length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.running, self.length = state["running"].cpu(), state["length"].cpu()


def _per_copy(x: Tensor) -> Tensor:
    """An info tensor ``[T, B]`` or ``[T, B, N]``, averaged over agents."""
    return x.float() if x.ndim == 2 else x.float().mean(-1)
