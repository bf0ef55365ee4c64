"""Your own environment in thirty lines: a scout sees the mine and calls its side, a digger hears and digs.

The scout's battery is empty after three calls, and it leaves while the digger goes on. Train a team for it with::

    concert train env=./examples/my_env.py:make total_steps=50000
"""

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv


class Mine(ParallelEnv):
    def __init__(self, horizon=8):
        self.possible_agents = ["scout", "digger"]
        self.metadata = {"name": "mine"}
        self.horizon = horizon
        self.observation_spaces = {"scout": Box(-1, 1, (1,)), "digger": Box(-1, 1, (3,))}
        self.action_spaces = {"scout": Discrete(2), "digger": Box(-1, 1, (1,))}

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        self.side = np.random.default_rng(seed).choice([-1.0, 1.0])
        self.call, self.place, self.time = 0.0, 0.0, 0
        self.agents = list(self.possible_agents)
        return self.see(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.time += 1
        self.call = 2.0 * actions["scout"] - 1 if "scout" in actions else 0.0
        self.place = float(np.clip(self.place + 0.5 * actions["digger"][0], -1, 1))
        rewards = {agent: -abs(self.place - self.side) for agent in self.agents}
        terminations = {agent: agent == "scout" and self.time == 3 for agent in self.agents}
        truncations = dict.fromkeys(self.agents, self.time == self.horizon)
        observations, infos = self.see(), {agent: {} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (terminations[agent] or truncations[agent])]
        return observations, rewards, terminations, truncations, infos

    def see(self):
        views = {"scout": [self.side], "digger": [self.call, self.place, self.time / self.horizon]}
        return {agent: np.array(views[agent], dtype=np.float32) for agent in self.agents}


def make(**args):
    return Mine(**args)
