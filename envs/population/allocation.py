"""Allocation: modules with skills form coalitions for weighted tasks within their reach.

Modules and tasks stand around a circle, so that every module reaches the same number of tasks whatever the size of the
population; rewards and what is seen are sums over pairs of module and task in reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from coordination import tree
from coordination.topology import Topology
from envs.population.base import DEFAULT_AGENTS, Population, PopulationState, TopologySetting, modules_spec
from envs.population.covering import best_assignment
from envs.render.scene import Scene
from envs.spaces import ActionSpec, ObservationSpec

SKILLS = {"lifter": (1, 0), "welder": (0, 1)}
MOST_LINKED = 64  # modules at one task up to which they are all linked by default


@tree.struct
class Work:
    """The tasks at hand, who went where, and what it was worth.

    Attributes:
        weight: ``[B, M]`` what each task pays, above 0.
        need: ``[B, M, S]`` float: units of each skill that each task needs, whole numbers, at least one in all.
        supply: ``[B, M, S]`` float: units brought to each place by the last choices.
        choice: ``[B, N]`` int64: last choice of each module, 0 for none, k for the k-th task in its reach.
        value: ``[B, M]`` what each task paid in the last step.
        bound: ``[B]`` value that no choices could have exceeded in the last step.
        left: ``[B]`` int64: steps still to come.
    """

    weight: Tensor = tree.axes("M")
    need: Tensor = tree.axes("M S")
    supply: Tensor = tree.axes("M S")
    choice: Tensor = tree.axes("N")
    value: Tensor = tree.axes("M")
    bound: Tensor = tree.axes("")
    left: Tensor = tree.axes("")


class Allocation(Population[Work]):
    """Who works on which task? A task pays its weight when those who join it have the skills it needs together.

    At each step every module joins one of the K tasks in its reach, or none. A task is served where the skills of
    those who joined cover its need in every skill; its weight is then shared equally among them, so that rewards sum to
    the value achieved. A served task makes room for a new one. Needs are drawn uniformly from 0 to ``max_need`` units a
    skill (one of each where nothing would be needed), weights uniformly from 0.5 to 1.5 per unit needed. Everybody in
    reach of a task sees its weight, its need, and what it would lack if all repeated their last choice. After the task
    allocation of Shehory and Kraus (1998, Artificial Intelligence 101), with overlapping reach and without costs.

    The M places of tasks lie on a circle; module j of the n of its kind reaches the K from ``floor(j M / n)`` on.

    Optimum: the best assignment to the tasks at hand is a covering program (:mod:`envs.population.covering`), solved
    exactly by :meth:`optimum` and bounded from above by :meth:`relaxation`; with 692 modules and the default arguments
    they are 2% apart. With ``renew=False`` tasks stay and pay at every step, so that the highest return is ``horizon``
    times the optimum of the first state, 307 on average by default; else the bounds hold for the tasks of each step.
    ``info["bound"]`` is a looser one at O(N K) for every step: all weights together, or the sum over modules of the
    most they could earn at a price of weight over units for each unit needed (a feasible point of the dual program),
    whichever is less.

    Info: ``value`` paid to all, ``served`` tasks, ``bound``; factors: the value of each task, whose scope
    is who can reach it.

    Dynamics: a module that fails joins no task; links only matter to policies, and trading places with others
    trades links and not tasks. A module that joins has joined no task yet.

    Args:
        num_agents: Number of modules N; None for as many as ``modules`` count, or 16.
        modules: How many there are of each kind; None for equal shares of all kinds in ``skills``.
        skills: Whole units of each skill by kind of module.
        num_tasks: Number of places M; None for half as many as modules. Raising it leaves more of them unserved.
        reach: Tasks in reach of a module, K; None for 3, or all where there are fewer.
        max_need: Most units of one skill that a task needs; raising it calls for larger coalitions.
        renew: Whether a served task is replaced.
        topology: As in :class:`~envs.population.base.Population`; None links modules that share a task in reach.
        dynamics: As there.
        horizon: Steps of an episode.

    Raises:
        ValueError: If an argument is out of range, ``skills`` does not name the kinds of modules, or somewhere fewer
            units than ``max_need`` are within reach.
    """

    def __init__(
        self,
        *,
        num_agents: int | None = None,
        modules: Mapping[str, int] | None = None,
        skills: Mapping[str, Sequence[int]] = SKILLS,
        num_tasks: int | None = None,
        reach: int | None = None,
        max_need: int = 2,
        renew: bool = True,
        topology: TopologySetting | None = None,
        dynamics: Mapping[str, float] | None = None,
        horizon: int = 20,
    ) -> None:
        modules = _even(num_agents, skills) if modules is None else modules
        table = _skill_table(skills, modules)
        tasks = sum(modules.values()) // 2 if num_tasks is None else num_tasks
        if tasks < 1:
            raise ValueError(f"num_tasks: must be at least 1, got {tasks}")
        reach = min(3, tasks) if reach is None else reach
        if not 1 <= reach <= tasks:
            raise ValueError(f"reach: must be in 1..{tasks}, the number of tasks, got {reach}")
        self.num_tasks, self.reach, self.max_need, self.renew, self.steps = tasks, reach, max_need, renew, horizon
        self.skills, self._sizes = table, tuple(modules.values())
        scopes = _scopes(_near(self._sizes, tasks, reach), tasks)
        self._check_need(scopes)
        width = len(table[0])
        observation = ObservationSpec.named(skills=width, urgency=1, mine=reach, tasks=reach * (2 * width + 1))
        agents = modules_spec(
            num_agents,
            modules,
            observation,
            ActionSpec.discrete(reach + 1),
            info={"value": "sum", "served": "sum", "bound": "sum"},
            factor_scopes=tuple(tuple(scope.tolist()) for scope in scopes),
        )
        links = _sharing(scopes, agents.num_agents) if topology is None else topology
        super().__init__(agents, topology=links, dynamics=dynamics, horizon=horizon)

    def _check_need(self, scopes: list[np.ndarray]) -> None:
        skill = np.repeat(self.skills, self._sizes, axis=0)
        least = int(min(skill[scope].sum(0).min() if len(scope) else 0 for scope in scopes))
        if not 1 <= self.max_need <= least:
            raise ValueError(
                f"max_need: must be in 1..{least}, the fewest units of a skill in reach of some task, got "
                f"{self.max_need}; raise reach or lower num_tasks for more"
            )

    # -- rules ------------------------------------------------------------------------------------

    def begin(self, generator: torch.Generator, n: int) -> Work:
        """New tasks everywhere; nobody has chosen."""
        device = generator.device
        weight, need = self._tasks(generator, n)
        return Work(
            weight=weight,
            need=need,
            supply=torch.zeros_like(need),
            choice=torch.zeros(n, self.num_agents, dtype=torch.int64, device=device),
            value=torch.zeros_like(weight),
            bound=torch.zeros(n, device=device),
            left=torch.full((n,), self.steps, device=device),
        )

    def _tasks(self, generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Weights ``[n, M]`` and needs ``[n, M, S]`` of new tasks."""
        shape, device = (n, self.num_tasks), generator.device
        width = len(self.skills[0])
        need = torch.randint(self.max_need + 1, (*shape, width), generator=generator, device=device).float()
        need = torch.where((need == 0).all(-1, keepdim=True), 1.0, need)
        weight = torch.rand(shape, generator=generator, device=device).add_(0.5).mul_(need.sum(-1))
        return weight, need

    def play(self, state: PopulationState[Work], action: Tensor, generator: torch.Generator) -> tuple[Work, Tensor]:
        """Everybody goes where they chose; covered tasks pay those who are there, and are replaced."""
        work, choice = state.modules, action[..., 0]
        layout = self._layout(action.device)
        site = layout.site.expand(*choice.shape, -1).gather(-1, action).squeeze(-1)
        there = self._attendance(site, layout)
        supply = there @ layout.skills
        served = (supply >= work.need).all(-1)
        value = torch.where(served, work.weight, 0.0)
        share = F.pad(value / there.sum(-1).clamp(min=1), (0, 1))  # idle modules get the last, 0
        weight, need = work.weight, work.need
        if self.renew:
            fresh_weight, fresh_need = self._tasks(generator, choice.shape[0])
            weight = torch.where(served, fresh_weight, weight)
            need = torch.where(served.unsqueeze(-1), fresh_need, need)
        after = Work(weight, need, supply, choice, value, self._dual(work, state.works, layout), work.left - 1)
        return after, share.gather(1, site)

    def _attendance(self, site: Tensor, layout: Layout) -> Tensor:
        """``[B, M, kinds]`` float: how many of each kind are at each place; ``site [B, N]`` is M for nowhere."""
        kinds = len(self._sizes)
        counts = site.new_zeros(site.shape[0], (self.num_tasks + 1) * kinds, dtype=torch.float32)
        column = site * kinds + layout.kind
        counts.scatter_add_(1, column, counts.new_ones(()).expand_as(column))
        return counts.unflatten(1, (-1, kinds))[:, :-1]

    def _dual(self, work: Work, works: Tensor | None, layout: Layout) -> Tensor:
        """``[B]`` the bound of ``info``."""
        price = work.weight / work.need.sum(-1)
        earns = []
        for group, skill in zip(self.agents.groups, layout.skills, strict=True):
            offer = torch.minimum(work.need, skill).sum(-1) * price
            near = layout.near[group.slice]
            earns.append(offer.index_select(1, near.flatten()).unflatten(1, near.shape).amax(-1))
        most = torch.cat(earns, 1)
        most = most if works is None else torch.where(works, most, 0.0)
        return torch.minimum(most.sum(-1), work.weight.sum(-1))

    def join(self, modules: Work, joined: Tensor, generator: torch.Generator) -> Work:
        """Who comes has joined no task."""
        return replace(modules, choice=torch.where(joined, 0, modules.choice))

    def observe(self, state: PopulationState[Work]) -> Tensor:
        """Own skills, one over the steps left, own last choice; then weight, need and lack of each task in reach."""
        work, layout = state.modules, self._layout(state.reward.device)
        shape = work.choice.shape
        skills = layout.skills[layout.kind].expand(*shape, -1)
        urgency = (1 / work.left.clamp(min=1).float()).view(-1, 1, 1).expand(*shape, 1)
        mine = work.choice.unsqueeze(-1) == layout.option
        board = torch.cat([work.weight.unsqueeze(-1), work.need, work.need - work.supply], -1)
        tasks = board.index_select(1, layout.near.flatten()).view(*shape, -1)
        return torch.cat([skills, urgency, mine.float(), tasks], -1)

    def scene(self, state: PopulationState[Work]) -> Scene:
        """Tasks on a circle, each module outside of the middle of its reach, kinds one behind the other."""
        layout = self._layout(state.reward.device)
        middle = layout.near[:, 0] + (self.reach - 1) / 2
        tasks = torch.arange(self.num_tasks, device=middle.device)
        modules = _around(middle / self.num_tasks, 1.15 + 0.15 * layout.kind)
        spots = {"task": _around(tasks / self.num_tasks, torch.ones_like(tasks))}
        n = len(state.reward)
        return Scene(modules.expand(n, -1, -1), {name: x.expand(n, -1, -1) for name, x in spots.items()})

    def info(self, state: PopulationState[Work]) -> dict[str, Tensor]:
        """What was paid in all, tasks served, and the most that could have been paid."""
        value = state.modules.value
        return {"value": value.sum(-1), "served": (value > 0).sum(-1).float(), "bound": state.modules.bound}

    def factors(self, state: PopulationState[Work]) -> Tensor:
        """``[B, M]`` what each task paid."""
        return state.modules.value

    def _layout(self, device: torch.device) -> Layout:
        return _layout(self._sizes, self.skills, self.num_tasks, self.reach, device)

    # -- what is known of the optimum ---------------------------------------------------------------------

    def optimum(self, state: PopulationState[Work]) -> tuple[Tensor, Tensor]:
        """The best the modules that work can do with the tasks at hand, by branch and bound on the CPU.

        Args:
            state: Of a few copies: the problem is NP-hard, and 692 modules take a quarter of a second by default.

        Returns:
            ``[B]`` float64 value, and ``[B, N, 1]`` int64 actions that attain it.
        """
        solved = [best_assignment(*program) for program in self._programs(state)]
        action = torch.from_numpy(np.stack([chosen for _, chosen in solved])).unsqueeze(-1)
        return torch.tensor([value for value, _ in solved], dtype=torch.float64), action

    def relaxation(self, state: PopulationState[Work]) -> Tensor:
        """``[B]`` float64 upper bound of :meth:`optimum`: a linear program of N K variables a copy, on the CPU."""
        return torch.tensor([best_assignment(*p, relaxed=True)[0] for p in self._programs(state)], dtype=torch.float64)

    def _programs(self, state: PopulationState[Work]) -> Iterator[tuple[np.ndarray, ...]]:
        """Weight, need, skill and reach of each copy."""
        near = _near(self._sizes, self.num_tasks, self.reach)
        works = torch.ones_like(state.modules.choice, dtype=torch.bool) if state.works is None else state.works
        skill = np.repeat(self.skills, self._sizes, axis=0)
        copies = zip(state.modules.weight, state.modules.need, works, strict=True)
        for weight, need, there in (tuple(x.double().cpu().numpy() for x in copy) for copy in copies):
            yield weight, need, skill * there[:, None], near


class Layout(NamedTuple):
    """Constants of an allocation on one device.

    Attributes:
        skills: ``[kinds, S]`` float units of each kind.
        kind: ``[N]`` int64 kind of each module.
        near: ``[N, K]`` int64 places in reach.
        site: ``[1, N, K + 1]`` int64 place of each choice, M for none.
        option: ``[K]`` int64: 1 to K.
    """

    skills: Tensor
    kind: Tensor
    near: Tensor
    site: Tensor
    option: Tensor


@lru_cache(maxsize=16)
def _layout(
    sizes: tuple[int, ...], skills: tuple[tuple[int, ...], ...], tasks: int, reach: int, device: torch.device
) -> Layout:
    near = torch.from_numpy(_near(sizes, tasks, reach))
    made = Layout(
        skills=torch.tensor(skills, dtype=torch.float32),
        kind=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        near=near,
        site=F.pad(near, (1, 0), value=tasks).unsqueeze(0),
        option=torch.arange(1, reach + 1),
    )
    return Layout(*(x.to(device) for x in made))


def _around(share: Tensor, radius: Tensor) -> Tensor:
    """``[n, 2]`` places at shares of a turn ``[n]``, from the right, on circles of radii ``[n]``."""
    angle = 2 * torch.pi * share
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def _near(sizes: tuple[int, ...], tasks: int, reach: int) -> np.ndarray:
    """``[N, K]`` int64: the places that each module can choose from, in the order of its choices."""
    first = np.concatenate([np.arange(size) * tasks // size for size in sizes])
    return (first[:, None] + np.arange(reach)) % tasks


def _scopes(near: np.ndarray, tasks: int) -> list[np.ndarray]:
    """The modules in reach of each place, ascending."""
    order = np.argsort(near, axis=None, kind="stable")
    return np.split(order // near.shape[1], np.cumsum(np.bincount(near.reshape(-1), minlength=tasks))[:-1])


def _sharing(scopes: list[np.ndarray], num_agents: int) -> Topology:
    """Links between all modules that share a task in reach."""
    most = max(map(len, scopes))
    if most > MOST_LINKED:
        raise ValueError(
            f"topology: {most} modules share a task, at most {MOST_LINKED} are linked by default; choose a topology "
            "or raise num_tasks"
        )
    pairs = [np.stack(np.triu_indices(size, 1)) for size in range(most + 1)]
    ends = np.concatenate([scope[pairs[len(scope)]] for scope in scopes], axis=1)
    return Topology.from_links(ends[0], ends[1], num_agents, "shared_tasks")


def _even(num_agents: int | None, skills: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """As many modules of each kind, those listed first one more where it does not come out even."""
    total = DEFAULT_AGENTS if num_agents is None else num_agents
    if total < len(skills):
        raise ValueError(f"num_agents: must be at least {len(skills)}, one of each kind in skills, got {total}")
    each, more = divmod(total, len(skills))
    return {name: each + (i < more) for i, name in enumerate(skills)}


def _skill_table(skills: Mapping[str, Sequence[int]], modules: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """Units of each skill, by kind in the order of ``modules``."""
    if set(skills) != set(modules):
        raise ValueError(f"skills: expected units for each of {', '.join(modules)}; got {', '.join(skills)}")
    if empty := [name for name, size in modules.items() if size < 1]:
        raise ValueError(f"modules: expected at least one {empty[0]!r}, got {modules[empty[0]]}")
    table = tuple(tuple(int(units) for units in skills[name]) for name in modules)
    if len({len(row) for row in table}) != 1 or not table[0] or min(map(min, table)) < 0:
        raise ValueError(f"skills: expected as many units, 0 or more, for every kind; got {dict(skills)}")
    return table
