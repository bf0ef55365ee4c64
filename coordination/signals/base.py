"""The contract of reward signals: what a stage sees, what it declares, and how a chain of them is applied.

A signal turns the raw rewards ``[*, N]`` of an environment into the rewards that the agents learn from. Each stage
declares two properties, and an audit checks what can be checked on every call:

* ``conserves_sum``: at every step the sum over living agents stays what it was;
* ``policy_invariant``: no agent's optimal policy, and no Nash equilibrium, changes for a learner that maximises its own
  discounted reward (Ng et al. 1999; Devlin and Kudenko 2011). A stage that keeps the sum leaves the objective of a
  *centralised* learner alone, yet usually changes what a selfish one wants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from coordination import tree
from coordination.graph import Graph
from coordination.names import unknown
from coordination.topology import Topology

Array = Tensor | np.ndarray | Sequence
AUDIT_TOLERANCE = 1e-5  # of the sum of absolute rewards: float32 sums over 100,000 agents stay inside


@tree.struct
class Trajectory:
    """A selection of steps: the context of a reward stage.

    Attributes:
        reward: ``[*, N]`` raw rewards of the environment.
        action: ``[*, N, A]``.
        alive: ``[*, N]`` bool: slots that hold a living agent when it acts.
        acting: ``[*, N]`` bool: who chose.
        terminated: ``[*, N]`` bool: the agent's return ends with this step.
        cut: ``[*, N]`` bool: no later step belongs to the same episode of this agent.
        obs: ``[*, N, O]`` observations acted on.
        graph: Who hears whom.
        team: ``[N]`` int64 team of each agent, shared by all samples; keep it on the CPU.
        next_obs: ``[*, N, O]`` observations of the true successors, also at time limits; or None.
        log_prob: ``[*, N]`` log-probability of the action when it was taken; or None.
        factors: ``[*, F]`` factors of the team reward; or None.
        logits: ``[*, N, K]`` unnormalised log-probabilities of the policy over one discrete choice; or None.
        info: ``[*]`` or ``[*, N]`` tensors by name, as the environment reports them.

    Leading axes are time first where a stage needs a trajectory. Anything may stand in the slots of dead agents.
    :meth:`of` makes one from whatever is at hand.
    """

    reward: Tensor = tree.axes("N")
    action: Tensor = tree.axes("N A")
    alive: Tensor = tree.axes("N")
    acting: Tensor = tree.axes("N")
    terminated: Tensor = tree.axes("N")
    cut: Tensor = tree.axes("N")
    obs: Tensor = tree.axes("N O")
    graph: Graph = tree.axes("")
    team: Tensor = tree.shared()
    next_obs: Tensor | None = tree.axes("N O", default=None)
    log_prob: Tensor | None = tree.axes("N", default=None)
    factors: Tensor | None = tree.axes("F", default=None)
    logits: Tensor | None = tree.axes("N K", default=None)
    info: dict[str, Tensor] = tree.axes("", default_factory=dict)

    @classmethod
    def of(
        cls,
        reward: Array,
        graph: Graph | Topology | None = None,
        info: Mapping[str, Array] | None = None,
        **fields: Array,
    ) -> Trajectory:
        """A trajectory from tensors, arrays or lists of any library; what is not given takes its plain meaning.

        Args:
            reward: ``[*, N]``.
            graph: Who hears whom; nobody if None.
            info: ``[*]`` or ``[*, N]`` numbers by name.
            fields: Any of the other attributes. By default everyone lives and acts, nothing ends, an episode is cut
                where an agent terminates, all are in one team, and actions and observations have no columns.

        Raises:
            ValueError: For a field that does not exist, or shapes that do not fit each other.

        >>> Trajectory.of([[1.0, 2.0]], terminated=[[False, True]]).cut.tolist()
        [[False, True]]
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if strange := [name for name in fields if name not in names]:
            raise ValueError(unknown("field", strange[0], sorted(names)))
        raw = torch.as_tensor(reward)
        raw = raw if raw.is_floating_point() else raw.float()
        named = {name: torch.as_tensor(x) for name, x in (info or {}).items()}
        found = {name: torch.as_tensor(x) for name, x in fields.items()}
        found |= {name: found[name].bool() for name in ("alive", "acting", "terminated", "cut") if name in found}
        yes, n = torch.ones_like(raw, dtype=torch.bool), raw.shape[-1]
        alive, terminated = found.get("alive", yes), found.get("terminated", ~yes)
        if not isinstance(graph, Graph):
            graph = Graph(topology=Topology(torch.zeros(2, 0), n, "empty") if graph is None else graph)
        plain = {
            "action": raw.new_zeros(*raw.shape, 0, dtype=torch.long),
            "alive": alive,
            "acting": alive,
            "terminated": terminated,
            "cut": terminated,
            "obs": raw.new_zeros(*raw.shape, 0),
            "team": torch.zeros(n, dtype=torch.long),
        }
        made = cls(reward=raw, graph=graph, info=named, **(plain | found))
        made.check()
        return made

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.reward.shape[-1]

    @property
    def num_teams(self) -> int:
        """Number of teams."""
        return int(self.team.max()) + 1

    def check(self) -> None:
        """Refuse fields whose shapes do not fit each other; reads shapes only.

        Raises:
            ValueError: With the field, the expected and the found shape.
        """
        shape = tuple(self.reward.shape)
        for name in ("alive", "acting", "terminated", "cut", "log_prob"):
            found = getattr(self, name)
            if found is not None and tuple(found.shape) != shape:
                raise ValueError(f"{name}: expected the shape of reward {shape}, got {tuple(found.shape)}")
        for name in ("action", "obs", "next_obs", "logits"):
            found = getattr(self, name)
            if found is not None and tuple(found.shape[:-1]) != shape:
                raise ValueError(f"{name}: expected {shape} and one more axis, got {tuple(found.shape)}")
        if self.factors is not None and tuple(self.factors.shape[:-1]) != shape[:-1]:
            raise ValueError(f"factors: expected {shape[:-1]} and one more axis, got {tuple(self.factors.shape)}")
        if tuple(self.team.shape) != shape[-1:]:
            raise ValueError(f"team: expected [N] = {shape[-1:]}, got {tuple(self.team.shape)}")
        if self.graph.num_agents != shape[-1]:
            raise ValueError(f"graph: expected {shape[-1]} agents, got {self.graph.num_agents}")


@runtime_checkable
class RewardStage(Protocol):
    """One map of rewards; a class of your own needs these members and no base class.

    Attributes:
        name: What its part is called in reports.
        needs: ``transition``: any selection of single steps will do, so replayed rewards can be computed when sampled;
            ``trajectory``: whole stretches of time are needed, time first.
        conserves_sum, policy_invariant: See the top of this file.

    A stage may also have ``audit(reward, result, context) -> list[str]``, called in audit mode: the violations it finds
    in properties of its own; and ``bias_bound``, where the error it makes against the team objective is bounded.
    """

    name: str
    needs: Literal["transition", "trajectory"]
    conserves_sum: bool
    policy_invariant: bool

    def __call__(self, reward: Tensor, context: Trajectory) -> Tensor:
        """Rewards ``[*, N]`` after this stage; those of dead agents come and go as zero."""
        ...


@tree.struct
class RewardBundle:
    """What a chain of stages made of the raw rewards.

    Attributes:
        reward: ``[*, N]`` what the agents learn from; zero in dead slots.
        team: ``[*, teams]`` sums of the *raw* rewards of each team's living agents: the only measure of success.
        parts: ``[*, N]`` change made by each stage, by name; raw reward plus all parts is ``reward``.
        violations: What the audit found, one sentence each; empty without an audit.
    """

    reward: Tensor = tree.axes("N")
    team: Tensor = tree.axes("G")
    parts: dict[str, Tensor] = tree.axes("N", default_factory=dict)
    violations: tuple[str, ...] = tree.shared(default=())


class SharedReward:
    """A chain of stages, applied in order.

    Args:
        stages: Reward stages; an empty chain returns the raw rewards.
        audit: Check every declared property on every call, and name what fails in ``violations``. Costs a few
            reductions a stage and waits for the device; meant for tests and first runs.

    >>> from coordination.signals import Team
    >>> bundle = SharedReward([Team()])(Trajectory.of([[1.0, 2.0]]))
    >>> bundle.reward.tolist(), bundle.team.tolist(), bundle.parts["team"].tolist()
    ([[3.0, 3.0]], [[3.0]], [[2.0, 1.0]])
    """

    def __init__(self, stages: Sequence[RewardStage], audit: bool = False) -> None:
        for stage in stages:
            if not isinstance(stage, RewardStage) or stage.needs not in ("transition", "trajectory"):
                raise TypeError(
                    f"stages: {stage!r} is no reward stage; it needs __call__(reward, context) and the attributes "
                    f"name, needs ('transition' or 'trajectory'), conserves_sum and policy_invariant"
                )
        self.stages = tuple(stages)
        self.audit = audit
        names = [stage.name for stage in stages]
        self.names = tuple(
            name if names.count(name) == 1 else f"{name}_{names[: i + 1].count(name)}" for i, name in enumerate(names)
        )

    def __repr__(self) -> str:
        return f"SharedReward({', '.join(self.names)})"

    @property
    def needs(self) -> Literal["transition", "trajectory"]:
        """``trajectory`` if any stage needs one."""
        return "trajectory" if any(s.needs == "trajectory" for s in self.stages) else "transition"

    @property
    def conserves_sum(self) -> bool:
        """Whether every stage keeps the sum over living agents."""
        return all(s.conserves_sum for s in self.stages)

    @property
    def policy_invariant(self) -> bool:
        """Whether every stage keeps every agent's optimal policies."""
        return all(s.policy_invariant for s in self.stages)

    def __call__(self, context: Trajectory) -> RewardBundle:
        """Apply the stages to the raw rewards of ``context``.

        Raises:
            ValueError: If the context does not fit together, or a stage returns another shape.
        """
        context.check()
        reward = raw = torch.where(context.alive, context.reward, 0.0)
        parts: dict[str, Tensor] = {}
        violations: list[str] = []
        for name, stage in zip(self.names, self.stages, strict=True):
            after = stage(reward, context)
            if after.shape != reward.shape:
                raise ValueError(f"signal {name!r}: returned {tuple(after.shape)}, expected {tuple(reward.shape)}")
            after = torch.where(context.alive, after, 0.0)
            if self.audit:
                violations += [f"{name}: {found}" for found in _audit(stage, reward, after, context)]
            parts[name] = after - reward
            reward = after
        return RewardBundle(reward, team_sum(raw, context), parts, tuple(violations))


def team_sum(reward: Tensor, context: Trajectory) -> Tensor:
    """Sum over each team's living agents: ``[*, N] -> [*, teams]``, O(N)."""
    living = torch.where(context.alive, reward, 0.0)
    if context.num_teams == 1:
        return living.sum(-1, keepdim=True)
    total = living.new_zeros(*living.shape[:-1], context.num_teams)
    return total.index_add(-1, context.team.to(living.device, non_blocking=True), living)


def _audit(stage: RewardStage, before: Tensor, after: Tensor, context: Trajectory) -> list[str]:
    found: list[str] = []
    if not bool(after.isfinite().all()):
        found.append("returned a reward that is not finite")
    if stage.conserves_sum:
        scale = before.abs().sum(-1) + after.abs().sum(-1) + 1
        error = ((after.sum(-1) - before.sum(-1)).abs() / scale).max() if scale.numel() else scale.sum()
        if not float(error) <= AUDIT_TOLERANCE:
            found.append(f"declares conserves_sum, but a sum changed by {float(error):.2g} of the rewards' size")
    own = getattr(stage, "audit", None)
    return found if own is None else found + list(own(before, after, context))
