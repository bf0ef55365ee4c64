"""Deliberation: modules with private noisy evidence must reach a joint, calibrated decision over their links.

Nothing but reports of belief travels, and everybody is scored on what they say: who pools the evidence of all is
calibrated, who counts an echo twice is punished for confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from coordination import tree
from envs.population.base import Population, PopulationState, TopologySetting, modules_spec
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec

SCORES = ("log", "brier")
COLUMNS = {name: i for i, name in enumerate(("evidence", "quality", "report", "heard", "neighbours", "urgency"))}


@tree.struct
class Beliefs:
    """What is true, what the modules know of it, and what they said last.

    Attributes:
        truth: ``[B]`` float: 1 where the hypothesis holds, else 0.
        evidence: ``[B, N]`` log-likelihood ratio of each module's private evidence, in nats.
        report: ``[B, N]`` log-odds of the hypothesis as last stated, 0 before anything is said.
        left: ``[B]`` int64: reports still to come in this episode.
    """

    truth: Tensor = tree.axes("")
    evidence: Tensor = tree.axes("N")
    report: Tensor = tree.axes("N")
    left: Tensor = tree.axes("")

    @cached_property
    def error(self) -> Tensor:
        """``[B, N]`` probability that each module gives to what is false."""
        return torch.sigmoid(self.report * (1 - 2 * self.truth.unsqueeze(-1)))


class Deliberation(Population[Beliefs]):
    """Which of two hypotheses holds, as likely as not? Each module has evidence of its own, and only reports travel.

    Evidence is Gaussian (signal detection; Green and Swets 1966): module i sees ``x ~ N(+-d_i / 2, 1)``, of which the
    log-likelihood ratio ``d_i x`` is kept: normal, with mean ``+-d_i^2 / 2`` and variance ``d_i^2``. The posterior
    log-odds given all evidence are the sum of the ratios, distributed alike with ``D^2 = sum of d_i^2``.

    At each step every module states log-odds of the hypothesis, and then sees the last reports of those it hears.
    The last report of an episode (or each) is paid a proper score of the probability p it gives to what is true,
    ``log p`` or ``-(1 - p)^2``, less ``agreement * (p - mean of p over living modules)^2`` for standing apart.

    Optimum: the expected score of the pooled posterior, :meth:`bayes_score`, for every payment. No policy exceeds it,
    as the score is proper and the charge never negative. Consensus on the ratios attains it where averaging settles
    within the episode, up to the limit on log-odds (:func:`~envs.population.scripted.pool_evidence`); deciding alone
    scores ``bayes_score(0)`` before the charge.

    Dynamics: a failed module stands by its last report; evidence belongs to the slot, so that a module which
    joins finds that of its predecessor, and the optimum above stays a bound.

    Args:
        num_agents: Number of modules N; None for as many as ``modules`` count, or 16.
        modules: How many there are of each kind, e.g. ``{"reliable": 4, "unreliable": 12}``.
        evidence: Discriminability d of each module's evidence, or of each kind's; raising it makes modules need each
            other less. 0 is no evidence.
        score: ``log`` or ``brier``.
        agreement: Weight of the charge for standing apart, at least 0.
        every_step: Pay every report instead of the last alone: what is said to others is then belief as well.
        continuous_actions: Report any log-odds in [-limit, limit] instead of one of ``levels`` evenly spaced ones.
        limit: Largest log-odds that can be stated.
        levels: Number of choices, at least 2.
        topology, dynamics: As in :class:`~envs.population.base.Population`.
        horizon: Reports in an episode; a module can have heard from ``horizon - 1`` links away.

    Raises:
        ValueError: If an argument is out of range, or ``evidence`` does not name the kinds of modules.
    """

    def __init__(
        self,
        *,
        num_agents: int | None = None,
        modules: Mapping[str, int] | None = None,
        evidence: float | Mapping[str, float] = 0.5,
        score: str = "log",
        agreement: float = 0.5,
        every_step: bool = False,
        continuous_actions: bool = True,
        limit: float = 8.0,
        levels: int = 17,
        topology: TopologySetting = "torus",
        dynamics: Mapping[str, float] | None = None,
        horizon: int = 10,
    ) -> None:
        if score not in SCORES:
            raise ValueError(f"score: one of {', '.join(SCORES)}; got {score!r}")
        if not agreement >= 0:
            raise ValueError(f"agreement: must be at least 0, got {agreement}")
        if not 0 < limit < float("inf"):
            raise ValueError(f"limit: must be positive and finite, got {limit}")
        if levels < 2:
            raise ValueError(f"levels: must be at least 2, got {levels}")
        agents = modules_spec(
            num_agents,
            modules,
            ObservationSpec.named(**dict.fromkeys(COLUMNS, 1)),
            ActionSpec.box(-limit, limit, 1) if continuous_actions else ActionSpec.discrete(levels),
            info={"accuracy": "last", "calibration": "last", "agreement": "last"},
        )
        super().__init__(agents, topology=topology, dynamics=dynamics, horizon=horizon)
        self.score, self.agreement, self.every_step = score, float(agreement), every_step
        self.limit, self.levels, self.steps = float(limit), levels, horizon
        self.quality = _of_kinds(evidence, agents)
        self._sizes = tuple(group.size for group in agents.groups)

    def bayes_score(self, reach: int | None = None) -> float:
        """Expected score of one report, mean over modules, when each knows all evidence within ``reach`` links.

        O(N + E) for ``reach = None``, all evidence; else one sparse product with the ``reach``-hop neighbourhoods.

        Args:
            reach: 0 for a module's own evidence alone; None for everybody's.
        """
        square = np.repeat(np.square(self.quality), self._sizes)
        if reach is None:
            return float(expected_score(np.sqrt(square.sum()), self.score))
        within, counts = np.unique(self.topology.hops(reach).matrix @ square, return_counts=True)
        return float(np.average(expected_score(np.sqrt(within), self.score), weights=counts))

    def begin(self, generator: torch.Generator, n: int) -> Beliefs:
        """A fair coin says what is true; evidence is drawn accordingly, and nobody has spoken."""
        device = generator.device
        truth = torch.randint(2, (n,), generator=generator, device=device).float()
        quality = _quality(self.quality, self._sizes, device)
        evidence = torch.randn(n, self.num_agents, generator=generator, device=device)
        evidence = evidence.add_((truth - 0.5).unsqueeze(-1) * quality).mul_(quality)
        return Beliefs(truth, evidence, torch.zeros_like(evidence), torch.full((n,), self.steps, device=device))

    def play(
        self, state: PopulationState[Beliefs], action: Tensor, generator: torch.Generator
    ) -> tuple[Beliefs, Tensor]:
        """Everybody who works reports; reports are paid if it is time."""
        before, said = state.modules, action[..., 0]
        if self.agents.discrete:
            said = _levels(self.levels, self.limit, said.device)[said]
        else:
            said = said.clamp(-self.limit, self.limit)
        if state.works is not None:
            said = torch.where(state.works, said, before.report)
        after = replace(before, report=said, left=before.left - 1)
        reward = self._paid(after, state.alive)
        return after, reward if self.every_step else torch.where((after.left == 0).unsqueeze(-1), reward, 0.0)

    def _paid(self, beliefs: Beliefs, alive: Tensor | None) -> Tensor:
        """``[B, N]`` score of the reports, less the charge for standing apart."""
        wrong = beliefs.error
        if self.score == "log":
            score = F.logsigmoid(beliefs.report * (2 * beliefs.truth.unsqueeze(-1) - 1))
        else:
            score = -wrong.square()
        apart = wrong - _mean(wrong, alive).unsqueeze(-1)  # as far apart as the stated probabilities are
        return torch.addcmul(score, apart, apart, value=-self.agreement)

    def join(self, modules: Beliefs, joined: Tensor, generator: torch.Generator) -> Beliefs:
        """Who comes has the evidence of the slot and has said nothing."""
        return replace(modules, report=torch.where(joined, 0.0, modules.report))

    def observe(self, state: PopulationState[Beliefs]) -> Tensor:
        """Own evidence, its quality, own last report; mean report heard, from how many; one over the reports left."""
        own = state.modules
        count = state.num_heard()
        heard = state.heard(own.report) / count.clamp(min=1)
        urgency = 1 / own.left.clamp(min=1).float()
        quality = _quality(self.quality, self._sizes, heard.device)
        columns = (own.evidence, quality, own.report, heard, count, urgency.unsqueeze(-1))
        return torch.stack([column.expand_as(heard) for column in columns], -1)

    def info(self, state: PopulationState[Beliefs]) -> dict[str, Tensor]:
        """Share of living modules that side with the truth, mean Brier score, share that side with the majority."""
        side = (torch.sign(state.modules.report) + 1) / 2  # undecided counts half
        for_it = _mean(side, state.alive)
        truth = state.modules.truth
        return {
            "accuracy": 1 - (truth - for_it).abs(),
            "calibration": _mean(state.modules.error.square(), state.alive),
            "agreement": torch.maximum(for_it, 1 - for_it),
        }


def expected_score(discriminability: float | np.ndarray, score: str = "log") -> np.ndarray:
    """Expected proper score of the posterior from Gaussian evidence, under fair prior odds.

    The log-odds of what is true are normal of mean ``D^2 / 2`` and variance ``D^2``; the score of ``p = 1 / (1 +
    exp(-odds))`` is integrated over them by the trapezoid rule to 10 standard deviations. For ``log``, the result is
    ``I - log 2`` nats with I the capacity of the binary-input Gaussian channel at noise 2 / D (Richardson and Urbanke
    2008, Modern Coding Theory, section 4.1).

    Args:
        discriminability: D, distance of the two means in standard deviations; any shape.
        score: ``log`` for log p, ``brier`` for -(1 - p)^2.

    Returns:
        Scores in the shape of D; ``-log 2`` or -1/4 without evidence, 0 with certainty.
    """
    distance = np.asarray(discriminability, dtype=np.float64)[..., None]
    deviation = np.linspace(-10, 10, 4001)
    density = np.exp(-np.square(deviation) / 2)
    odds = distance * (distance / 2 + deviation)
    paid = -np.logaddexp(0, -odds) if score == "log" else -np.square(expit(-odds))
    return (paid * density).sum(-1) / density.sum()


def _of_kinds(evidence: float | Mapping[str, float], agents: AgentSpec) -> tuple[float, ...]:
    """Discriminability of the evidence of each kind."""
    kinds = [group.name for group in agents.groups]
    given = evidence if isinstance(evidence, Mapping) else dict.fromkeys(kinds, evidence)
    if set(given) != set(kinds):
        raise ValueError(f"evidence: expected one value for each of {', '.join(kinds)}; got {', '.join(given)}")
    if negative := [name for name, value in given.items() if not value >= 0]:
        raise ValueError(f"evidence: must be at least 0, got {given[negative[0]]} for {negative[0]}")
    return tuple(float(given[name]) for name in kinds)


@lru_cache(maxsize=16)
def _quality(of_kinds: tuple[float, ...], sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """``[1, N]`` discriminability of each module's evidence."""
    return torch.tensor(of_kinds).repeat_interleave(torch.tensor(sizes)).unsqueeze(0).to(device)


@lru_cache(maxsize=16)
def _levels(count: int, limit: float, device: torch.device) -> Tensor:
    """``[count]`` log-odds that can be stated."""
    return torch.linspace(-limit, limit, count, device=device)


def _mean(x: Tensor, alive: Tensor | None) -> Tensor:
    """``[B]`` mean of ``x [B, N]`` over living modules, 0 where there are none."""
    if alive is None:
        return x.mean(-1)
    return torch.where(alive, x, 0.0).sum(-1) / alive.sum(-1).clamp(min=1)
