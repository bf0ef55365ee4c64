"""A turn-based (AEC) environment with every trouble of its kind: rewards between turns, masks, and agents that die."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils import AgentSelector


class Rounds(AECEnv):
    """Players take turns and name a number: it is added to their reward, and taken from whoever is next.

    An observation is [turn, own number, first draw of the episode]. A player must not repeat its last number; the mask
    of everybody else is all zeros, as in PettingZoo's classic games.

    Args:
        dies: Triples (turn, player, what), what being terminated or truncated.
        horizon: Turns after which everybody is truncated.
        mask_in: ``obs``, ``infos`` or ``nothing``.
        deads_first: Whether the dead are put first in the order, as PettingZoo advises but not every game does.
    """

    def __init__(self, dies=(), horizon=7, mask_in="obs", deads_first=True):
        super().__init__()
        self.metadata = {"name": "rounds", "is_parallelizable": False}
        self.render_mode = None
        self.possible_agents = ["player_0", "player_1", "player_2"]
        self.dies, self.horizon = [tuple(d) for d in dies], horizon
        self.mask_in, self.deads_first = mask_in, deads_first
        seen = spaces.Box(-100, 100, (3,))
        both = spaces.Dict({"observation": seen, "action_mask": spaces.Box(0, 1, (3,), np.int8)})
        self.seen, self.done = both if mask_in == "obs" else seen, spaces.Discrete(3)
        self.heard = []

    def observation_space(self, agent):
        return self.seen

    def action_space(self, agent):
        return self.done

    def reset(self, seed=None, options=None):
        self.agents, self.turn = list(self.possible_agents), 0
        self.draw = 10 * np.random.default_rng(seed).random()
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.last_number = dict.fromkeys(self.agents, 0)
        self.order = AgentSelector(self.agents)
        self.agent_selection = self.order.reset()
        self._tell()

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            self._tell()
            return
        assert action != self.last_number[agent] or self.mask_in == "nothing", "a masked number"
        self.heard.append((agent, action))
        self._cumulative_rewards[agent] = 0
        self._clear_rewards()
        self.turn, self.last_number[agent] = self.turn + 1, action
        living = [a for a in self.agents if not (self.terminations[a] or self.truncations[a])]
        self.rewards[agent] += action
        self.rewards[living[(living.index(agent) + 1) % len(living)]] -= action
        self._accumulate_rewards()
        for turn, player, what in self.dies:
            if turn == self.turn:
                (self.terminations if what == "terminated" else self.truncations)[player] = True
        if self.turn == self.horizon:
            self.truncations = {a: not self.terminations[a] for a in self.agents}
        staying = [a for a in living if not (self.terminations[a] or self.truncations[a])]
        while self.order.next() not in staying and staying:
            pass
        self.agent_selection = self.order.selected_agent
        if self.deads_first or not staying:
            self._deads_step_first()
        self._tell()

    def observe(self, agent):
        row = np.array([self.turn, self.possible_agents.index(agent), self.draw], dtype=np.float32)
        return {"observation": row, "action_mask": self._mask(agent)} if self.mask_in == "obs" else row

    def state(self):
        return np.array([self.turn, sum(self.last_number.values())])

    def _mask(self, agent):
        allowed = np.ones(3, np.int8)
        allowed[self.last_number[agent]] = 0
        return allowed if agent == self.agent_selection else np.zeros(3, np.int8)

    def _tell(self):
        self.infos = {a: {"action_mask": self._mask(a)} if self.mask_in == "infos" else {} for a in self.agents}

    def close(self):
        pass
