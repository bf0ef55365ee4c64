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


class OffPolicyConfig(Config):
    """What all settings of learners from replay share.

    Attributes:
        learning_rate: Adam's step size.
        learning_rate_end: Share of it left at the end of training, reached linearly.
        gamma: Discount; raising it looks further ahead and makes values harder to learn.
        capacity: Transitions kept, over all copies.
        batch_size: Sequences drawn for an update.
        updates: Updates per iteration; raising it learns more from each step, and overfits sooner.
        warmup: Environment steps, over all copies, with random actions and without updates.
        tau: Share of the new weights that targets take over at each update; lowering it is slower and steadier.
        target_every: Updates after which targets take over all weights instead; None for ``tau`` at each.
        n_step: Rewards before the value is trusted; sequences are at least as long.
        sequence: Steps of the sequences drawn; raise it for policies that remember.
        burn_in: First steps of a sequence that only bring memory up to date.
        priority: How much errors count in what is drawn (Schaul et al. 2016); None draws all alike.
        priority_beta: How far that bias is made up for at the start; at the end it is in full.
        huber: Where the value loss turns from square to linear; None for squares throughout.
        max_grad_norm: Gradient clipping of each parameter group; None for none.
    """

    learning_rate: float = Field(default=5e-4, gt=0)
    learning_rate_end: float = Field(default=1.0, ge=0, le=1)
    gamma: float = Field(default=0.99, ge=0, le=1)
    capacity: int = Field(default=200_000, ge=2)
    batch_size: int = Field(default=512, ge=1)
    updates: int = Field(default=1, ge=1)
    warmup: int = Field(default=5_000, ge=0)
    tau: float = Field(default=0.01, gt=0, le=1)
    target_every: int | None = Field(default=None, ge=1)
    n_step: int = Field(default=1, ge=1)
    sequence: int = Field(default=1, ge=1)
    burn_in: int = Field(default=0, ge=0)
    priority: float | None = Field(default=None, ge=0, le=1)
    priority_beta: float = Field(default=0.4, ge=0, le=1)
    huber: float | None = Field(default=None, gt=0)
    max_grad_norm: float | None = Field(default=10.0, gt=0)

    @property
    def length(self) -> int:
        """Steps of the sequences drawn, burn-in included."""
        return max(self.sequence, self.n_step) + self.burn_in


class ValueConfig(OffPolicyConfig):
    """Settings of value-based learners.

    Attributes:
        name: Recipe: how the agents' values are mixed (:mod:`marl.recipes`).
        mixer: ``none`` (IQL), ``sum`` (VDN), ``monotonic`` (QMIX), ``duplex`` (QPLEX).
        mixer_embed: Width of QMIX's mixing layer.
        mixer_hidden: Width of the networks that make mixing weights.
        double: The best next choice is picked by the learning network, not by the target (van Hasselt et al. 2016).
        duelling: Values are learned as a state's worth plus advantages (Wang et al. 2016, arXiv:1511.06581).
        lam: TD(lambda) over the sequence instead of ``n_step``; None for n steps.
        epsilon: Chance of a random choice at the start.
        epsilon_end: The same at the end of exploration.
        exploration: Share of training after which ``epsilon_end`` is reached, linearly.
    """

    name: Literal["iql", "vdn", "qmix", "qplex"] = "qmix"
    mixer: Literal["none", "sum", "monotonic", "duplex"] = "monotonic"
    mixer_embed: int = Field(default=32, ge=1)
    mixer_hidden: int = Field(default=64, ge=1)
    double: bool = True
    duelling: bool = False
    lam: float | None = Field(default=None, ge=0, le=1)
    epsilon: float = Field(default=1.0, ge=0, le=1)
    epsilon_end: float = Field(default=0.05, ge=0, le=1)
    exploration: float = Field(default=0.1, ge=0, le=1)
