"""Settings of algorithms; free of torch, so that mistakes are answered at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from marl.config import Config


class PPOConfig(Config):
    """Settings of PPO.

    Attributes:
        name: Recipe: with whom the critic looks (:mod:`marl.recipes`).
        learning_rate: Adam's step size for the policy.
        critic_learning_rate: The same for the critic; None takes the policy's.
        learning_rate_end: Share of the step sizes left at the end of training, reached linearly.
        gamma: Discount; raising it looks further ahead and makes values harder to learn.
        lam: GAE's trace decay; raising it trusts the critic less and adds variance.
        clip: How far a probability ratio may move in one iteration; raising it learns faster and less safely.
        epochs: Passes over each rollout.
        minibatches: Steps per pass.
        entropy: Weight of the entropy bonus at the start; raising it explores more.
        entropy_end: The same at the end, reached linearly; None keeps it.
        value_clip: Clip value updates as well, by ``clip`` normalised units.
        huber: Where the value loss turns from square to linear, in normalised units; None for squares throughout.
        normalise_value: Learn values in units of their running moments.
        normalise_advantage: Standardise advantages over the rollout.
        normalise_reward: Divide rewards by the running deviation of the discounted return.
        max_grad_norm: Gradient clipping of policy and critic each; None for none.
        target_kl: Stop a rollout's epochs once the policy has moved this far (one read-back per epoch); None never.
    """

    name: Literal["ippo", "mappo"] = "mappo"
    learning_rate: float = Field(default=7e-4, gt=0)
    critic_learning_rate: float | None = Field(default=None, gt=0)
    learning_rate_end: float = Field(default=0.0, ge=0, le=1)
    gamma: float = Field(default=0.99, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    clip: float = Field(default=0.2, gt=0, lt=1)
    epochs: int = Field(default=10, ge=1)
    minibatches: int = Field(default=4, ge=1)
    entropy: float = Field(default=0.01, ge=0)
    entropy_end: float | None = Field(default=None, ge=0)
    value_clip: bool = True
    huber: float | None = Field(default=10.0, gt=0)
    normalise_value: bool = True
    normalise_advantage: bool = True
    normalise_reward: bool = False
    max_grad_norm: float | None = Field(default=10.0, gt=0)
    target_kl: float | None = Field(default=None, gt=0)
