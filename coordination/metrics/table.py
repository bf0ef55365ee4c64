"""Coordination metrics of whole trajectories by name: one tidy table, or a running one over many.

>>> from coordination.signals import Trajectory
>>> table = evaluate(Trajectory.of([[3.0, 1.0], [1.0, 3.0]], action=[[[0], [0]], [[0], [1]]]), ["action_synchrony"])
>>> table["action_synchrony"].value, table["action_synchrony"].unit
(0.5, 'share')
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from coordination.channel.ledger import sum_by
from coordination.coalition.community import modularity
from coordination.links import at_ends, endpoints
from coordination.metrics import behaviour
from coordination.metrics.resilience import percolation_robustness
from coordination.metrics.roles import adjusted_rand, role_information
from coordination.metrics.streaming import Running
from coordination.names import unknown
from coordination.signals.base import Trajectory, team_sum
from coordination.signals.temporal import steadiness
from coordination.topology import Topology
from coordination.topology.robustness import max_robustness

SPECTRAL_LIMIT = 2000  # agents; eigenvalues of larger graphs can take minutes


@dataclass(frozen=True)
class Metric:
    """One number about a trajectory.

    Attributes:
        compute: From a trajectory to samples of any shape, NaN where the number means nothing; their mean is reported.
        unit: What it is measured in.
        low, high: Range of its values.
        lacks: From a trajectory to what it misses for this metric, or None.
        limit: Most agents up to which it is computed without being asked for by name.
    """

    compute: Callable[[Trajectory], Tensor]
    unit: str
    low: float = -math.inf
    high: float = math.inf
    lacks: Callable[[Trajectory], str | None] = lambda _: None
    limit: float = math.inf

    def applies(self, trajectory: Trajectory) -> bool:
        """Whether it is computed where no names are given."""
        return trajectory.num_agents <= self.limit and self.lacks(trajectory) is None


@dataclass(frozen=True)
class Score:
    """One row of the table.

    Attributes:
        value: Mean over the samples in which the metric means something; NaN if there is none.
        spread: Standard deviation over those samples; NaN below two. Neighbouring steps are not independent, so divide
            it by no root of their number.
        samples: How many there are.
        unit, low, high: As in :class:`Metric`.
    """

    value: float
    spread: float
    samples: int
    unit: str
    low: float
    high: float


def evaluate(
    trajectory: Trajectory, names: Iterable[str] | None = None, own: Mapping[str, Metric] | None = None
) -> dict[str, Score]:
    """Coordination metrics of a trajectory.

    O(T B (N + E)) and what each metric costs on top; formulas, ranges and sources stand with the functions that the
    metrics are named after.

    Args:
        trajectory: Steps of one or many copies, time first where metrics over time are asked for.
        names: Which of :data:`METRICS` (and of ``own``); None for all that apply (that the trajectory has what they
                need for, and that are quick at its size).
        own: Further metrics by name.

    Returns:
        A row for every metric, in the order asked for.

    Raises:
        ValueError: For an unknown name, or a metric asked for by name that the trajectory lacks something for.

    >>> from coordination.signals import Trajectory
    >>> evaluate(Trajectory.of([[1.0, 2.0], [3.0, 4.0]]), ["team_reward"])["team_reward"].value
    5.0
    """
    return Meter(names, own).add(trajectory).table()


class Meter:
    """Metrics over a stream of trajectories, in constant memory.

    The samples of all trajectories count alike. What is one number for a trajectory (``total_correlation``, say) counts
    as one sample.

    Args:
        names, own: As in :func:`evaluate`; with None, the first trajectory decides.

    >>> from coordination.signals import Trajectory
    >>> meter = Meter(["team_reward"]).add(Trajectory.of([[1.0, 2.0]])).add(Trajectory.of([[3.0, 2.0]]))
    >>> meter.table()["team_reward"].value
    4.0
    """

    def __init__(self, names: Iterable[str] | None = None, own: Mapping[str, Metric] | None = None) -> None:
        self.known = METRICS | dict(own or {})
        self.names = None if names is None else tuple(names)
        for name in self.names or ():
            if name not in self.known:
                raise ValueError(unknown("metric", name, self.known))
        self._running: dict[str, Running] = {}

    def add(self, trajectory: Trajectory) -> Meter:
        """Also count this trajectory; returns itself."""
        trajectory.check()
        if self.names is None:
            self.names = tuple(name for name, metric in self.known.items() if metric.applies(trajectory))
        for name in self.names:
            metric = self.known[name]
            if (lacks := metric.lacks(trajectory)) is not None:
                raise ValueError(f"metric {name!r}: {lacks}")
            samples = torch.as_tensor(metric.compute(trajectory))
            before = self._running.get(name, Running.empty(device=samples.device))
            self._running[name] = before.add(samples, samples.isfinite())
        return self

    def table(self) -> dict[str, Score]:
        """What has been seen so far."""
        rows = {}
        for name, seen in self._running.items():
            metric, count = self.known[name], int(seen.count)
            value = float(seen.mean) if count else math.nan
            rows[name] = Score(value, float(seen.variance.sqrt()), count, metric.unit, metric.low, metric.high)
        return rows


def _discrete(trajectory: Trajectory) -> str | None:
    if trajectory.action.is_floating_point() or trajectory.action.shape[-1] == 0:
        return "needs discrete actions"
    return None


def _has_actions(trajectory: Trajectory) -> str | None:
    return "needs actions, time first" if trajectory.action.shape[-1] == 0 or trajectory.reward.ndim < 2 else None


def _has_logits(trajectory: Trajectory) -> str | None:
    return "needs logits" if trajectory.logits is None else None


def _has_coalitions(trajectory: Trajectory) -> str | None:
    return None if "coalition" in trajectory.info else "needs labels [*, N] under the name coalition in info"


def _has_topology(trajectory: Trajectory) -> str | None:
    topology = trajectory.graph.topology
    return None if topology is not None and topology.num_edges > 0 else "needs one graph shared by all samples"


def _has_undirected(trajectory: Trajectory) -> str | None:
    topology = trajectory.graph.topology
    fits = topology is not None and topology.is_undirected and topology.num_edges > 0
    return None if fits else "needs one undirected graph"


def _has_both(trajectory: Trajectory) -> str | None:
    return _has_coalitions(trajectory) or _has_undirected(trajectory)


def _few(trajectory: Trajectory) -> str | None:
    if trajectory.num_agents > 12:
        return f"needs at most 12 agents to count joint actions, got {trajectory.num_agents}"
    return _discrete(trajectory)


def _topology(trajectory: Trajectory) -> Topology:
    assert trajectory.graph.topology is not None
    return trajectory.graph.topology


def _coalition(trajectory: Trajectory) -> Tensor:
    label = trajectory.info["coalition"].expand(trajectory.reward.shape)
    return torch.where(trajectory.alive, label, -1)


def _modularity(trajectory: Trajectory) -> Tensor:
    return modularity(_coalition(trajectory), _topology(trajectory), alive=trajectory.alive)


def _first_component(trajectory: Trajectory) -> Tensor:
    return trajectory.action[..., 0]


def _synchrony(trajectory: Trajectory) -> Tensor:
    acting = trajectory.acting & trajectory.alive
    choice = torch.where(acting, _first_component(trajectory), 0)
    return behaviour.action_synchrony(choice, int(choice.max()) + 1, acting)


def _policies(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Logits ``[*, N, K]`` and who chose by them."""
    assert trajectory.logits is not None
    return trajectory.logits, trajectory.acting & trajectory.alive


def _team_entropy(trajectory: Trajectory) -> Tensor:
    return behaviour.team_entropy(*_policies(trajectory))


def _policy_diversity(trajectory: Trajectory) -> Tensor:
    logits, acting = _policies(trajectory)
    return behaviour.categorical_diversity(logits.softmax(-1), acting)


def _has_values(trajectory: Trajectory) -> str | None:
    value = trajectory.info.get("value")
    shape = trajectory.reward.shape
    if value is None or value.shape[: len(shape)] != shape or len(shape) < 2 or value.ndim > len(shape) + 1:
        return "needs what agents hold, time first, [T, *, N] or [T, *, N, D] under the name value in info"
    return None


def _has_values_and_links(trajectory: Trajectory) -> str | None:
    return _has_values(trajectory) or _has_undirected(trajectory)


def _values(trajectory: Trajectory) -> Tensor:
    value = trajectory.info["value"]
    return value if value.ndim > trajectory.reward.ndim else value.unsqueeze(-1)


def _disagreement(trajectory: Trajectory) -> Tensor:
    return behaviour.disagreement_energy(_values(trajectory), _topology(trajectory), trajectory.alive)


def _consensus_error(trajectory: Trajectory) -> Tensor:
    """``[T-1, *]`` against the first step, over agents that lived at both."""
    value = _values(trajectory)
    both = trajectory.alive[1:] & trajectory.alive[:1]
    return behaviour.consensus_error(value[1:], value[:1].expand_as(value[1:]), both)


def _per_agent(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """``[N]`` mean reward of each agent over the samples in which it lived, and whether it ever did."""
    alive = trajectory.alive.reshape(-1, trajectory.num_agents)
    reward = torch.where(alive, trajectory.reward.reshape(alive.shape), 0.0).double().sum(0)
    return reward / alive.sum(0).clamp(min=1), alive.any(0)


def _shares(measure: Callable[..., Tensor]) -> Callable[[Trajectory], Tensor]:
    """A measure of inequality of mean rewards; NaN where one is negative, as shares are then undefined."""

    def compute(trajectory: Trajectory) -> Tensor:
        reward, lived = _per_agent(trajectory)
        valid = ((reward >= 0) | ~lived).all()
        return torch.where(valid, measure(reward.clamp(min=0), lived), torch.nan)

    return compute


def _steadiness(trajectory: Trajectory) -> Tensor:
    alike, known = steadiness(trajectory)
    return torch.where(known, alike, torch.nan)


def _churn(trajectory: Trajectory) -> Tensor:
    """``[T-1, *]``: agents whose episode is cut between two steps do not count."""
    label = _coalition(trajectory)
    before = torch.where(trajectory.cut[:-1], -1, label[:-1])
    return 1 - adjusted_rand(label[1:], before)


def _links(trajectory: Trajectory) -> Tensor:
    """``[*]`` links that are up between living agents, per living agent."""
    graph, alive = trajectory.graph, trajectory.alive
    carries = at_ends(alive, graph, "sender") & at_ends(alive, graph, "receiver")
    up = graph.up()
    carries = carries if up is None else carries & up
    sent = sum_by(carries.long(), endpoints(graph, alive.device)[0], graph.num_agents)
    return sent.sum(-1) / alive.sum(-1)


METRICS: dict[str, Metric] = {
    "team_reward": Metric(lambda t: team_sum(t.reward, t).mean(-1), "reward per step and team"),
    "alive": Metric(lambda t: t.alive.float().mean(-1), "share", 0, 1),
    "reward_gini": Metric(_shares(behaviour.gini), "share", 0, 1),
    "reward_jain": Metric(_shares(behaviour.jain), "share", 0, 1),
    "reward_load_balance": Metric(_shares(behaviour.load_balance), "times the mean", 1),
    "reward_variation": Metric(_shares(behaviour.load_variation), "times the mean", 0),
    "action_synchrony": Metric(_synchrony, "share", 0, 1, _discrete),
    "total_correlation": Metric(
        lambda t: behaviour.total_correlation(_first_component(t), t.acting & t.alive), "nats", 0, lacks=_few
    ),
    "team_entropy": Metric(_team_entropy, "nats", 0, lacks=_has_logits),
    "policy_diversity": Metric(_policy_diversity, "total variation", 0, 1, _has_logits),
    "disagreement_energy": Metric(_disagreement, "squared value", 0, lacks=_has_values_and_links),
    "consensus_error": Metric(_consensus_error, "of the first", 0, lacks=_has_values),
    "temporal_coherence": Metric(_steadiness, "similarity", -1, 1, _has_actions),
    "role_information": Metric(
        lambda t: role_information(torch.where(t.acting & t.alive, _first_component(t), -1)), "nats", 0, lacks=_discrete
    ),
    "coalition_churn": Metric(_churn, "1 - adjusted Rand", 0, 1.5, _has_coalitions),
    "coalition_modularity": Metric(_modularity, "share", -0.5, 1, _has_both),
    "links_per_agent": Metric(_links, "links", 0),
    "algebraic_connectivity": Metric(
        lambda t: torch.tensor(_topology(t).lambda2()), "", 0, lacks=_has_undirected, limit=SPECTRAL_LIMIT
    ),
    "spectral_gap": Metric(lambda t: torch.tensor(1 - _topology(t).slem()), "", 0, 1, _has_undirected, SPECTRAL_LIMIT),
    "robustness": Metric(
        lambda t: torch.tensor(float(max_robustness(_topology(t)))), "r of r-robust", 0, lacks=_has_topology, limit=12
    ),
    "percolation_robustness": Metric(
        lambda t: torch.tensor(percolation_robustness(_topology(t))), "share", 0, 0.5, _has_undirected, 20_000
    ),
}
