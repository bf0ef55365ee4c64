"""SuperSuit's preprocessing wrappers by name: which may be worn, and why the others are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pettingzoo import AECEnv, ParallelEnv

from coordination.names import unknown
from envs.door.errors import explain

E = TypeVar("E", ParallelEnv, AECEnv)
SUITS = (
    "agent_indicator_v0",
    "clip_actions_v0",
    "clip_reward_v0",
    "color_reduction_v0",
    "delay_observations_v0",
    "dtype_v0",
    "flatten_v0",
    "frame_skip_v0",
    "frame_stack_v1",
    "frame_stack_v2",
    "max_observation_v0",
    "nan_noop_v0",
    "nan_random_v0",
    "nan_zeros_v0",
    "normalize_obs_v0",
    "reshape_v0",
    "resize_v1",
    "scale_actions_v0",
    "sticky_actions_v0",
)
_VECTOR = "copies and workers are made by envs.make (num_envs, workers); SuperSuit's repeat seeds between processes"
_PADDING = "agents with different spaces are padded already"
_LAMBDA = "it takes functions, which have no name; write a factory that applies it and give its import path"
REFUSED = {
    "black_death_v3": "dead agents are masked already; this wrapper misses an ordinary end and runs one step too long",
    "pad_observations_v0": _PADDING,
    "pad_action_space_v0": _PADDING,
    "action_lambda_v1": _LAMBDA,
    "observation_lambda_v0": _LAMBDA,
    "reward_lambda_v0": _LAMBDA,
    "concat_vec_envs_v1": _VECTOR,
    "gym_vec_env_v0": _VECTOR,
    "pettingzoo_env_to_vec_env_v1": _VECTOR,
    "stable_baselines_vec_env_v0": _VECTOR,
    "stable_baselines3_vec_env_v0": _VECTOR,
    "vectorize_aec_env_v0": _VECTOR,
}


def split(wrapper: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A wrapper in the form ``"name"`` or ``{"name": ..., argument: ...}`` as its name and arguments.

    Raises:
        TypeError: If it has neither form.
    """
    if isinstance(wrapper, str):
        return wrapper, {}
    if isinstance(wrapper, dict) and isinstance(wrapper.get("name"), str):
        return wrapper["name"], {key: value for key, value in wrapper.items() if key != "name"}
    raise TypeError(f"wrappers: expected a name or a mapping with a name, got {wrapper!r}")


def check(name: str) -> None:
    """Refuse what is not a preprocessing wrapper of SuperSuit.

    Raises:
        ValueError: With the reason, or with the closest name.
    """
    if name in REFUSED:
        raise ValueError(f"wrapper {name!r} is refused: {REFUSED[name]}")
    if name not in SUITS:
        raise ValueError(unknown("wrapper", name, ("hide", *SUITS)))


def wear(env: E, suits: Sequence[str | dict[str, Any]]) -> E:
    """The environment with the wrappers put on, the first one innermost.

    Raises:
        ValueError: If a name is unknown or refused.
        EnvError: If a wrapper does not fit the environment.
    """
    for suit in suits:
        name, args = split(suit)
        check(name)
        import supersuit

        try:
            env = getattr(supersuit, name)(env, **args)
            for agent in env.possible_agents:
                _ = env.observation_space(agent), env.action_space(agent)
        except Exception as error:
            raise explain(error, f"wrapper {name!r}") from error
    return env
