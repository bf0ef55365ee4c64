"""Settings of algorithms; free of torch, so that mistakes are answered at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from marl.config import Config


class OnPolicyConfig(Config):
    """What all settings of learners from fresh rollouts share.

    Attributes:
        learning_rate: Adam's step size for the policy.
        critic_learning_rate: The same for the critic; None takes the policy's.
        learning_rate_end: Share of the step sizes left at the end of training, reached linearly.
        gamma: Discount; raising it looks further ahead and makes values harder to learn.
        lam: Trace decay of GAE or TD(lambda); raising it trusts the critic less and adds variance.
        epochs: Passes over each rollout.
        minibatches: Steps per pass.
        entropy: Weight of the entropy bonus at the start; raising it explores more.
        entropy_end: The same at the end, reached linearly; None keeps it.
        huber: Where the value loss turns from square to linear, in normalised units; None for squares throughout.
        normalise_value: Learn values in units of their running moments.
        normalise_advantage: Bring advantages to unit deviation over the rollout.
        normalise_reward: Divide rewards by the running deviation of the discounted return.
        max_grad_norm: Gradient clipping of policy and critic each; None for none.
    """

    learning_rate: float = Field(default=7e-4, gt=0)
    critic_learning_rate: float | None = Field(default=None, gt=0)
    learning_rate_end: float = Field(default=0.0, ge=0, le=1)
    gamma: float = Field(default=0.99, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    epochs: int = Field(default=10, ge=1)
    minibatches: int = Field(default=4, ge=1)
    entropy: float = Field(default=0.01, ge=0)
    entropy_end: float | None = Field(default=None, ge=0)
    huber: float | None = Field(default=10.0, gt=0)
    normalise_value: bool = True
    normalise_advantage: bool = True
    normalise_reward: bool = False
    max_grad_norm: float | None = Field(default=10.0, gt=0)


class PPOConfig(OnPolicyConfig):
    """Settings of PPO.

    Attributes:
        name: Recipe: with whom the critic looks (:mod:`marl.recipes`).
        clip: How far a probability ratio may move in one iteration; raising it learns faster and less safely.
        value_clip: Clip value updates as well, by ``clip`` normalised units.
        target_kl: Stop a rollout's epochs once the policy has moved this far (one read-back per epoch); None never.
    """

    name: Literal["ippo", "mappo"] = "mappo"
    clip: float = Field(default=0.2, gt=0, lt=1)
    value_clip: bool = True
    target_kl: float | None = Field(default=None, gt=0)


class HAPPOConfig(PPOConfig):
    """Settings of HAPPO.

    Attributes:
        name: Recipe (:mod:`marl.recipes`).
        groups: Most groups of agents updated one after another; more sets of weights than that are dealt evenly among
            them. Raising it is nearer to the paper and takes as many times as long; 1 is MAPPO.
    """

    name: Literal["happo"] = "happo"  # type: ignore[assignment]
    groups: int = Field(default=16, ge=1)


class COMAConfig(OnPolicyConfig):
    """Settings of COMA; ``epochs`` and ``minibatches`` are the critic's, the policy takes one step a rollout.

    Attributes:
        name: Recipe (:mod:`marl.recipes`).
        lam: Trace decay of TD(lambda); raising it trusts the target critic less and adds variance.
        epochs: Passes of the critic over each rollout.
        tau: Share of the critic's new weights that its target takes over at each step; lowering it is slower and
            steadier.
    """

    name: Literal["coma"] = "coma"
    lam: float = Field(default=0.8, ge=0, le=1)
    epochs: int = Field(default=4, ge=1)
    tau: float = Field(default=0.01, gt=0, le=1)


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


class ActorCriticConfig(OffPolicyConfig):
    """What the settings of off-policy actors with Q-critics share.

    Attributes:
        critic_learning_rate: Adam's step size for the critics; None takes the policy's.
        twin: Two critics, the lower of which is believed (Fujimoto et al. 2018, arXiv:1802.09477).
    """

    critic_learning_rate: float | None = Field(default=None, gt=0)
    twin: bool = False


class DDPGConfig(ActorCriticConfig):
    """Settings of deterministic policy gradients.

    Attributes:
        name: Recipe: with whom the critic looks, and whether it has a twin (:mod:`marl.recipes`).
        noise: Standard deviation of the exploration noise on reals, in units of half their range. Discrete choices are
            sampled, which explores by itself.
        noise_end: The same at the end of training, reached linearly.
        smoothing: Standard deviation of the noise on target actions; 0 for none. Raising it smooths the critic.
        smoothing_clip: Bound of that noise.
        policy_every: Critic updates for each update of the policy.
        regularise: Weight of the squares of the policy's raw outputs: keeps it from saturating.
    """

    name: Literal["maddpg", "iddpg", "matd3"] = "maddpg"
    noise: float = Field(default=0.2, ge=0)
    noise_end: float = Field(default=0.1, ge=0)
    smoothing: float = Field(default=0.0, ge=0)
    smoothing_clip: float = Field(default=0.5, gt=0)
    policy_every: int = Field(default=1, ge=1)
    regularise: float = Field(default=1e-3, ge=0)


class SACConfig(ActorCriticConfig):
    """Settings of soft actor-critic.

    Attributes:
        name: Recipe: with whom the critics look (:mod:`marl.recipes`).
        twin: Two critics, the lower of which is believed.
        temperature: Weight of the entropy at the start; a raised one explores more.
        learn_temperature: Whether each group's temperature follows its entropy target.
        entropy_target: Reals shall have an entropy of minus this per component, on [-1, 1].
        discrete_entropy_target: Discrete choices shall have this share of their largest entropy.
    """

    name: Literal["masac", "isac"] = "masac"
    twin: bool = True
    temperature: float = Field(default=0.1, gt=0)
    learn_temperature: bool = True
    entropy_target: float = Field(default=1.0, ge=0)
    discrete_entropy_target: float = Field(default=0.3, ge=0, le=1)
