"""Navigation among obstacles: every agent has a goal of its own, senses what is near, and should touch nothing."""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from coordination import tree
from coordination.graph import Graph
from coordination.topology import Topology
from envs.base import View
from envs.links import COMPLETE_UP_TO
from envs.native import Task
from envs.particle import physics
from envs.particle.physics import CONTACT_FORCE, KEPT_VELOCITY, TIME_STEP
from envs.render.scene import Scene
from envs.spaces import ActionSpec, ObservationSpec
from envs.spec import AgentSpec, Group

MOVES = 5  # none, left, right, down, up
TOUCH = 0.1  # two radii of 0.05
TOP_SPEED = 2.0
INNER = 0.8  # obstacles and goals keep to this share of the world
LINK_FEATURES = 7  # velocity, position and goal of the sender relative to the receiver, and the distance
DRAWS = 32  # places tried for each body that may overlap others
FORESIGHT = 2  # steps the scripted policy looks ahead


@tree.struct
class NavigationState:
    """Where everything is, and who has arrived.

    Attributes:
        position, velocity: ``[B, N, 2]`` of the agents.
        goal: ``[B, N, 2]`` where each agent should go.
        obstacle: ``[B, M, 2]``.
        arrived: ``[B, N]`` int64 step at which the agent first was at its goal; the horizon before that.
        step: ``[B]`` int64 steps of this episode.
    """

    position: Tensor = tree.axes("N 2")
    velocity: Tensor = tree.axes("N 2")
    goal: Tensor = tree.axes("N 2")
    obstacle: Tensor = tree.axes("M 2")
    arrived: Tensor = tree.axes("N")
    step: Tensor = tree.axes("")

    @cached_property
    def offset(self) -> Tensor:
        """``[B, N, 2N+M-1, 2]`` from each agent to the goals, the obstacles and the other agents, in order."""
        return physics.offsets(self.position, torch.cat([self.goal, self.obstacle], 1))

    @cached_property
    def distance(self) -> Tensor:
        """``[B, N, 2N+M-1]`` lengths of the offsets."""
        return physics.lengths(self.offset)

    @cached_property
    def collisions(self) -> Tensor:
        """``[B, N]`` float: other agents each one touches, and one more if it touches any obstacle."""
        n, m = self.goal.shape[1], self.obstacle.shape[1]
        touches = self.distance < TOUCH
        return touches[..., n + m :].sum(-1, dtype=torch.float32) + touches[..., n : n + m].any(-1)


class Navigation(Task[NavigationState]):
    """InforMARL's ``navigation_graph`` (Nayak et al. 2023, arXiv:2211.02127): N agents, N goals, M obstacles.

    An agent is paid minus the distance to its goal, or ``goal_reward`` while nearer than ``goal_radius``; less
    ``collision_cost`` for each agent it touches, and once if it touches obstacles. The joint reward of the paper is the
    sum over agents (train with ``reward=team``). Nobody terminates.

    Physics is that of the original particle worlds (Lowe et al. 2017, arXiv:1706.02275), not that of mpe2: the velocity
    changes first, by damping, push and contact, is cut at 2, and the agent moves by the new one. Radii are 0.05,
    obstacles stay, goals are no bodies. Obstacles are drawn in the inner 80% of the world; agents in all of it, apart
    from obstacles and each other; goals in the inner 80%, apart from obstacles and each other.

    Agents, goals and obstacles are nodes of one graph, in three groups of which the last two are passive. All have
    observations of one form and of one width for any N and M: velocity, position, offset to the own goal (zero for
    goals and obstacles), and the kind one-hot. Information is local: an agent senses more through its links alone.
    Every agent hears all entities within ``sensing_radius``. The features of a link are velocity, position and goal of
    the sender, each relative to the receiver, and the distance: the source's ``relative`` node and edge features.
    With more than 64 agents there are no links; choose some (``graph=radius:1``).

    Of ``info``, ``success`` says whether each agent was at its goal in some step before the last; ``time`` is the mean
    over agents of the first such step as a share of the episode, 1 where there is none; ``collisions`` counts, over
    steps, the agents that each agent touches (a pair twice) and the agents at obstacles. So does the source.

    Published for N = 3: return 205, time .38, 1.45 collisions, success 100% (table 1). Means over 1,000 episodes of the
    scripted policy here, which sees everything: return 238, time .36, .14 collisions, success 97%; for N = 7, 10, 15
    returns 535, 742, 1035 and success 94%, 89%, 75%. Random choices return -84, -209, -308, -492.

    Deviations: actions are numbered as in mpe2 (none, left, right, down, up); goals and obstacles hear nobody (the
    paper's figure; its code links them); places are drawn at most 32 times; bodies at one point do not push each other.
    The success threshold is that of the paper, 0.1; the default of its training script is 0.05.

    Args:
        num_agents: Agents and goals N.
        num_obstacles: Obstacles M, from 0 up.
        world_size: Side of the square; raising it spreads entities out.
        sensing_radius: Distance up to which an agent hears entities.
        goal_radius: Distance below which an agent is at its goal.
        goal_reward: Reward of a step there.
        collision_cost: What each collision costs in a step.
        max_cycles: Steps after which an episode is truncated.

    Raises:
        ValueError: If a number is out of its range.
    """

    ends_early = False

    def __init__(
        self,
        *,
        num_agents: int = 3,
        num_obstacles: int = 3,
        world_size: float = 2.0,
        sensing_radius: float = 1.0,
        goal_radius: float = 0.1,
        goal_reward: float = 5.0,
        collision_cost: float = 5.0,
        max_cycles: int = 25,
    ) -> None:
        counts = {"num_agents": (num_agents, 1), "num_obstacles": (num_obstacles, 0), "max_cycles": (max_cycles, 1)}
        for name, (value, least) in counts.items():
            if value < least:
                raise ValueError(f"{name}: must be at least {least}, got {value}")
        sizes = {"world_size": world_size, "sensing_radius": sensing_radius, "goal_radius": goal_radius}
        for name, value in sizes.items():
            if not value > 0:
                raise ValueError(f"{name}: must be positive, got {value}")
        self.num_agents, self.num_obstacles = num_agents, num_obstacles
        self.horizon = self.max_cycles = max_cycles
        self.world_size, self.sensing_radius, self.goal_radius = world_size, sensing_radius, goal_radius
        self.goal_reward, self.collision_cost = goal_reward, collision_cost
        self.agents = _agents(num_agents, num_obstacles)
        self._links = _links(num_agents, num_obstacles)

    def initial(self, generator: torch.Generator, n: int) -> NavigationState:
        """Everything at a random place, at rest."""
        device, half = generator.device, self.world_size / 2
        obstacle = _drawn(generator, n, self.num_obstacles, INNER * half)
        position = _apart(generator, self.num_agents, half, obstacle)
        goal = _apart(generator, self.num_agents, INNER * half, obstacle)
        arrived = torch.full((n, self.num_agents), self.max_cycles, device=device)
        step = torch.zeros(n, dtype=torch.int64, device=device)
        return NavigationState(position, torch.zeros_like(position), goal, obstacle, arrived, step)

    def advance(
        self, state: NavigationState, action: Tensor, generator: torch.Generator
    ) -> tuple[NavigationState, Tensor, Tensor]:
        """One step of physics; nothing terminates."""
        n = self.num_agents
        pressed = physics.contact(state.offset[:, :, n:], state.distance[..., n:], TOUCH)
        kick = physics.push(action[:, :n]).sub_(pressed, alpha=CONTACT_FORCE * TIME_STEP)
        _, velocity = physics.integrate(state.position, state.velocity, kick, _top_speed(action.device))
        position = torch.add(state.position, velocity, alpha=TIME_STEP)
        step, to_goal = state.step + 1, physics.lengths(state.goal - position)
        there = to_goal < self.goal_radius
        arrived = torch.where(there, torch.minimum(state.arrived, step.unsqueeze(-1)), state.arrived)
        after = NavigationState(position, velocity, state.goal, state.obstacle, arrived, step)
        paid = torch.where(there, self.goal_reward, -to_goal) - self.collision_cost * after.collisions
        reward = F.pad(paid, (0, n + self.num_obstacles))
        return after, reward, torch.zeros_like(reward, dtype=torch.bool)

    def view(self, state: NavigationState) -> View:
        """Velocity, position, goal and kind of every entity, and the links of those in reach."""
        n, m = self.num_agents, self.num_obstacles
        place = torch.cat([state.position, state.goal, state.obstacle], 1)
        target = torch.cat([state.goal, state.goal, state.obstacle], 1)
        velocity = F.pad(state.velocity, (0, 0, 0, n + m))
        kind = _kinds(n, m, place.device).expand(place.shape[0], -1, -1)
        obs = torch.cat([velocity, place, target - place, kind], -1)
        alive = torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device)
        return View(obs, alive, self._graph(torch.cat([velocity, place, target], -1)))

    def _graph(self, entity: Tensor) -> Graph:
        """Links from everything in reach, given velocity, position and goal ``[B, 2N+M, 6]`` of every entity."""
        if self._links.num_edges == 0:
            return Graph(topology=self._links)
        heard = entity.index_select(1, self._links.edges_on(entity.device)[0])
        agent = entity[:, : self.num_agents]
        here = torch.cat([agent[..., :4], agent[..., 2:4]], -1).unsqueeze(2)
        relative = (heard.view(len(heard), self.num_agents, -1, 6) - here).flatten(1, 2)
        distance = physics.lengths(relative[..., 2:4])
        attr = torch.cat([relative, distance.unsqueeze(-1)], -1)
        return Graph(topology=self._links, live=distance <= self.sensing_radius, attr=attr)

    def scene(self, state: NavigationState) -> Scene:
        """All entities, which are nodes of the graph too."""
        return Scene(torch.cat([state.position, state.goal, state.obstacle], 1))

    def info(self, state: NavigationState) -> dict[str, Tensor]:
        """Whether all have arrived, mean time to arrive, and collisions in this step."""
        return {
            "success": (state.arrived < self.max_cycles).all(-1).float(),
            "time": state.arrived.float().mean(-1) / self.max_cycles,
            "collisions": state.collisions.sum(-1),
        }


def _agents(n: int, m: int) -> AgentSpec:
    seen = ObservationSpec.named(velocity=2, position=2, goal=2, kind=3)
    groups = [Group("agent", 0, n, seen, ActionSpec.discrete(MOVES)), Group("goal", n, n, seen, None)]
    groups += [Group("obstacle", 2 * n, m, seen, None)] if m else []
    names = tuple(f"{group.name}_{i}" for group in groups for i in range(group.size))
    told: dict = {"success": "last", "time": "last", "collisions": "sum"}
    return AgentSpec(tuple(groups), names, info=told, edge_dim=LINK_FEATURES)


def _links(n: int, m: int) -> Topology:
    """Edges from every entity to each agent, if these are few enough; sorted by receiver, then sender."""
    entities = 2 * n + m
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(entities)).flip(-1).T
    return Topology(pairs[:, pairs[0] != pairs[1]] if n <= COMPLETE_UP_TO else pairs[:, :0], entities, "sensing")


def _drawn(generator: torch.Generator, copies: int, count: int, half: float) -> Tensor:
    """``[B, count, 2]`` uniform in a square."""
    drawn = torch.empty(copies, count, 2, device=generator.device)
    return drawn.uniform_(-half, half, generator=generator)


def _apart(generator: torch.Generator, count: int, half: float, obstacle: Tensor) -> Tensor:
    """``[B, count, 2]`` uniform in a square, each drawn until it is apart from obstacles and from those before it.

    All are drawn at once. Those that overlap an obstacle, or one that is settled, are drawn again; one is settled when
    it and all before it are apart. That has the law of placing them one after the other.
    """
    copies, device = obstacle.shape[0], obstacle.device
    place = _drawn(generator, copies, count, half)
    before = torch.ones(count, count, dtype=torch.bool, device=device).tril(-1)  # [i, j]: j comes before i
    for _ in range(DRAWS):
        blocked = (_gaps(place, obstacle) < TOUCH).any(-1)
        overlaps = (_gaps(place, place) < TOUCH) & before
        settled = (~(blocked | overlaps.any(-1))).cumprod(-1).bool()
        again = blocked | (overlaps & settled.unsqueeze(1)).any(-1)
        if device.type == "cpu" and bool(settled.all()):
            break
        place = torch.where(again.unsqueeze(-1), _drawn(generator, copies, count, half), place)
    return place


def _gaps(a: Tensor, b: Tensor) -> Tensor:
    """``[B, N, M]`` distances."""
    return physics.lengths(a.unsqueeze(2) - b.unsqueeze(1))


@lru_cache(maxsize=64)
def _kinds(n: int, m: int, device: torch.device) -> Tensor:
    """``[2N+M, 3]`` one-hot: agent, goal, obstacle."""
    return torch.eye(3, device=device).repeat_interleave(torch.tensor([n, n, m], device=device), 0)


@lru_cache(maxsize=8)
def _top_speed(device: torch.device) -> Tensor:
    return torch.full((1, 1), TOP_SPEED, device=device)


def navigation_greedy(view: View, agents: AgentSpec) -> Tensor:
    """Each agent takes the push that soon brings it nearest to its goal, unless it would touch something on the way.

    It looks two steps ahead, as if nobody pushed after this step and the others did not push at all, and takes each
    step in which it touches others or obstacles for a detour of one. It sees all positions and velocities.

    Args:
        view: Observations of navigation.
        agents: Who they are.

    Returns:
        ``[*, 2N+M, 1]`` int64 choices; zero for goals and obstacles.

    Raises:
        ValueError: If these are not the agents of navigation.
    """
    if [group.name for group in agents.groups[:2]] != ["agent", "goal"]:
        raise ValueError(f"navigation_greedy: expected agents and goals, got {[g.name for g in agents.groups]}")
    n, total = agents.groups[0].size, agents.num_agents
    obs = view.obs.reshape(-1, total, view.obs.shape[-1])
    velocity, position, goal = obs[:, :n, 0:2], obs[:, :n, 2:4], obs[:, n : 2 * n, 2:4]
    pushes = physics.push(torch.arange(MOVES, device=obs.device).view(1, -1, 1))
    speed = KEPT_VELOCITY * velocity.unsqueeze(2) + pushes.unsqueeze(1)  # [B, N, moves, 2]
    kept = KEPT_VELOCITY ** torch.arange(FORESIGHT, device=obs.device)
    way = TIME_STEP * kept.cumsum(0).view(-1, 1)  # [steps, 1] how far a unit of velocity has carried by then
    others = torch.cat([obs[:, :n], obs[:, 2 * n :]], 1)
    mine = position.view(-1, n, 1, 1, 2) + speed.unsqueeze(3) * way  # [B, N, moves, steps, 2]
    theirs = others[:, :, None, 2:4] + others[:, :, None, 0:2] * KEPT_VELOCITY * way  # [B, N + M, steps, 2]
    gap = physics.lengths(mine.unsqueeze(4) - theirs.transpose(1, 2)[:, None, None])  # [B, N, moves, steps, N + M]
    oneself = torch.eye(n, others.shape[1], dtype=torch.bool, device=obs.device).view(n, 1, 1, -1)
    touching = ((gap < TOUCH) & ~oneself).any(-1).sum(-1)
    left = physics.lengths(goal.unsqueeze(2) - mine[..., -1, :])
    chosen = (left + touching).argmin(-1)
    return F.pad(chosen, (0, total - n)).reshape(*view.obs.shape[:-1], 1)
