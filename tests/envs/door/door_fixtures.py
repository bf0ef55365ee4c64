"""Small PettingZoo environments with every trouble a door must stand: used in process and, by path, in workers."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Events(ParallelEnv):
    """Walkers (3 columns, Discrete) and a caller (2 columns, Box) that die, are cut off and come back as told.

    An observation is [time, 10 * episode seed's first draw, ...]; the reward of an agent is its number plus the time.

    Args:
        events: Triples (time, agent, what), what being terminated, truncated, joins or vanishes.
    """

    def __init__(self, events=(), horizon=6, order=("walker_0", "caller_0", "walker_1")):
        self.possible_agents = list(order)
        self.metadata = {"name": "events"}
        self.events, self.horizon = [tuple(e) for e in events], horizon
        self.observation_spaces = {a: spaces.Box(-100, 100, (3 if "walker" in a else 2,)) for a in order}
        self.action_spaces = {a: spaces.Discrete(3) if "walker" in a else spaces.Box(-1, 1, (2,)) for a in order}
        self.heard = []

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        self.noise, self.time, self.total = 10 * np.random.default_rng(seed).random(), 0, 0.0
        self.agents = [a for a in self.possible_agents if (0, a, "absent") not in self.events]
        return self.see(self.agents), {a: {} for a in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents), "actions for exactly the living"
        self.heard.append(actions)
        self.time += 1
        self.total += float(sum(np.sum(a) for a in actions.values()))
        acted = self.agents
        flags = {what: {a: (self.time, a, what) in self.events for a in acted} for what in ("terminated", "truncated")}
        if self.time == self.horizon:
            flags["truncated"] = dict.fromkeys(acted, True)
        joined = [a for a in self.possible_agents if (self.time, a, "joins") in self.events]
        gone = [a for a in acted if flags["terminated"][a] or flags["truncated"][a]]
        gone += [a for a in acted if (self.time, a, "vanishes") in self.events]
        rewards = {a: self.possible_agents.index(a) + self.time for a in acted}
        self.agents = [a for a in acted if a not in gone] + joined
        seen = self.see([*acted, *joined])
        return seen, rewards, flags["terminated"], flags["truncated"], {a: {} for a in seen}

    def see(self, agents):
        row = np.array([self.time, self.noise, self.total], dtype=np.float32)
        return {a: row[: self.observation_spaces[a].shape[0]] for a in agents}

    def state(self):
        return np.array([[self.time, self.noise], [self.total, 1.0]])


class Base(ParallelEnv):
    """Two agents that see two columns, choose among two, and stop after ``horizon`` steps."""

    def __init__(self, horizon=5):
        self.possible_agents = ["agent_0", "agent_1"]
        self.metadata = {"name": type(self).__name__}
        self.render_mode = None
        self.horizon = horizon
        self.seen = spaces.Box(-np.inf, np.inf, (2,))

    def observation_space(self, agent):
        return self.seen

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.time, self.seed = 0, seed
        self.agents = list(self.possible_agents)
        return self.see(), self.infos()

    def step(self, actions):
        self.time += 1
        self.act(actions)
        acted, over = self.agents, self.time == self.horizon
        rewards, terminated = dict.fromkeys(acted, 1.0), dict.fromkeys(acted, False)
        result = self.see(), rewards, terminated, dict.fromkeys(acted, over), self.infos()
        self.agents = [] if over else acted
        return result

    def act(self, actions):
        pass

    def see(self):
        return {a: self.row(a) for a in self.agents}

    def infos(self):
        return {a: {} for a in self.agents}

    def row(self, agent):
        return np.array([self.time, self.seed % 1000], dtype=np.float32)


class Uneven(Base):
    """Episodes of 3 to 6 steps, as the seed has it."""

    def reset(self, seed=None, options=None):
        self.horizon = 3 + seed % 4
        return super().reset(seed, options)


class MaskInObs(Base):
    """A Dict observation with an action mask that allows only the choice time modulo 2, for agent_0."""

    def __init__(self, horizon=5):
        super().__init__(horizon)
        self.seen = spaces.Dict({"observation": self.seen, "action_mask": spaces.MultiBinary(2)})

    def row(self, agent):
        mask = np.eye(2, dtype=np.int8)[self.time % 2] if agent == "agent_0" else np.ones(2, dtype=np.int8)
        return {"observation": super().row(agent), "action_mask": mask}


class MaskInInfos(Base):
    """The same mask, told in infos."""

    def infos(self):
        return {"agent_0": {"action_mask": np.eye(2, dtype=np.int8)[self.time % 2]}, "agent_1": {}}


class MaskTooLate(Base):
    """A mask from the first step on only."""

    def infos(self):
        return {a: {"action_mask": np.ones(2)} if self.time else {} for a in self.agents}


class NothingAllowed(MaskInInfos):
    """A mask that allows nothing after the first step."""

    def infos(self):
        return {a: {"action_mask": np.full(2, self.time == 0)} for a in self.agents}


class Nested(Base):
    """Dict observations of several kinds, and MultiDiscrete actions."""

    def __init__(self, horizon=5):
        super().__init__(horizon)
        self.seen = spaces.Dict({"board": spaces.Box(0, 1, (2, 2)), "role": spaces.Discrete(3)})
        self.heard = []

    def action_space(self, agent):
        return spaces.MultiDiscrete([2, 4])

    def act(self, actions):
        self.heard.append(actions)

    def row(self, agent):
        return {"board": np.array([[0, 1], [0.5, 0]], dtype=np.float32), "role": 2 if agent == "agent_0" else 1}


class Crash(Base):
    """Fails at its third step."""

    def act(self, actions):
        if self.time == 3:
            raise ZeroDivisionError("the floor\nis lava")


class CrashOnBuild(Base):
    """Cannot even be built."""

    def __init__(self, horizon=5):
        raise KeyError("no such map")


class Texts(Base):
    """Observes text."""

    def observation_space(self, agent):
        return spaces.Text(10)


class WrongShape(Base):
    """Shows one column where its space says two."""

    def row(self, agent):
        return super().row(agent)[: 1 if self.time else 2]


class Random(Base):
    """Different at every run: nothing can replay it."""

    def row(self, agent):
        return np.frombuffer(os.urandom(4), dtype=np.uint16).astype(np.float32)


class GlobalNoise(Base):
    """Draws from the global generators of numpy and of the standard library, as mpe2 does."""

    def row(self, agent):
        return np.array([np.random.random(), random.random()], dtype=np.float32)  # noqa: NPY002


class Prints(Base):
    """Prints into what a worker answers through."""

    def act(self, actions):
        print("ke" * 10, flush=True)  # noqa: T201


class Killed(Base):
    """Takes its process down at the second step."""

    def act(self, actions):
        if self.time == 2:
            os.kill(os.getpid(), signal.SIGKILL)


class Unlucky(Base):
    """Fails at the third step of the episodes with these seeds, and as told: raises, dies or hangs."""

    def __init__(self, seeds=(), how="raises", horizon=5):
        super().__init__(horizon)
        self.seeds, self.how = seeds, how

    def act(self, actions):
        if self.seed in self.seeds and self.time == 3:
            if self.how == "raises":
                raise ZeroDivisionError("the floor is lava")
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)


class UnluckyReset(Base):
    """Cannot begin the episodes with these seeds."""

    def __init__(self, seeds=(), horizon=2):
        super().__init__(horizon)
        self.seeds = seeds

    def reset(self, seed=None, options=None):
        if seed in self.seeds:
            raise ZeroDivisionError("no ground")
        return super().reset(seed, options)


class Images(Base):
    """Two agents that see small images: the time in every pixel."""

    def __init__(self, horizon=5):
        super().__init__(horizon)
        self.seen = spaces.Box(0, 255, (2, 3, 1), np.uint8)

    def row(self, agent):
        return np.full((2, 3, 1), 250 + self.time, np.uint8)


class Spy(Base):
    """Shows whether torch is loaded where it runs, and the number of its process."""

    def row(self, agent):
        return np.array(["torch" in sys.modules, os.getpid()], dtype=np.float32)


class OldApi(Base):
    """Resets to observations alone, as before infos."""

    def reset(self, seed=None, options=None):
        return super().reset(seed, options)[0]


def make(**args):
    """What the path of this file with ``:make`` stands for."""
    return Events(**args)


NOTHING = 3


def only_here(pid):
    """An environment that can be built in one process only."""
    if os.getpid() != pid:
        raise RuntimeError("not in a worker")
    return Base()
