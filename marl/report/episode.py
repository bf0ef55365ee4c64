"""What is kept of one recorded episode: a plain record to draw it from, and how well its agents coordinated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from coordination import metrics, tree
from coordination.graph import Graph
from coordination.topology.spectra import DENSE_SPECTRUM
from envs.spaces import ActionSpec
from envs.spec import AgentSpec
from marl.report.evaluate import Episodes

AGENTS = 1000  # most agents in a record; more cannot be told apart in a picture
OBSERVED = 500_000  # most observed numbers in a record (some 4 MB of text)
_DIGITS = 4

METRICS = {  # name: (what it says, where it can lie)
    "action_synchrony": (
        "How often two agents choose alike at the same moment; 1/K where K choices are random.",
        "0 to 1",
    ),
    "total_correlation": (
        "How far the agents' joint choices are from independent ones, in nats; for few agents (Watanabe 1960).",
        "0 to (N−1) ln K",
    ),
    "temporal_coherence": ("How steadily agents act: mean cosine between an agent's successive actions.", "−1 to 1"),
    "gini": ("Inequality of the agents' returns, or of their costs where all returns are negative.", "0 to 1−1/N"),
    "jain": ("Fairness of the same (Jain, Chiu and Hawe 1984); 1 where all get alike.", "1/N to 1"),
    "links": ("Directed links among the agents; the mean over steps where they change.", "0 to N(N−1)"),
    "lambda2": ("Algebraic connectivity, the second smallest Laplacian eigenvalue; 0 for a graph in pieces.", "0 to N"),
    "slem": ("How much of a disagreement is left after one round of averaging with Metropolis weights.", "0 to 1"),
}


def episode_record(seen: Episodes, agents: AgentSpec, columns: Mapping[str, slice] | None = None) -> dict[str, Any]:
    """The first of the recorded episodes as plain data for ``episode.json``; None where a number is not finite.

    Positions come from the observation part named ``position`` where every group has one, landmarks from the part named
    ``landmarks`` of the first group: pairs of offsets, as the first agent sees them. For environments whose
    observations have no named parts, ``columns`` says where they are (:func:`known_columns`).

    Args:
        seen: Episodes, of which copy 0 is taken.
        agents: Names, groups and the parts of their observations.
        columns: Columns of ``position`` and, if wanted, ``landmarks`` in the observation of every agent.

    Returns:
        ``edges_shared [E][2]`` or ``edges [T][E][2]`` (src, dst), ``obs [T][N][O]`` (None above OBSERVED numbers),
        ``action``, ``reward``, ``alive``, ``positions [T][N][2]`` or None, ``landmarks [T][L][2]`` or None,
        ``agents [N]`` names, ``num_agents``. Only the first AGENTS agents are kept, with the links among them.
    """
    steps, total = int(seen.length[0]), agents.num_agents
    n = min(total, AGENTS)
    view, action, reward = tree.index((seen.view, seen.action, seen.reward), (slice(steps), 0))
    obs = view.obs[:, :n]
    positions, landmarks = _places(obs, agents, columns)
    return {
        **_edges(view.graph, n),
        "obs": _plain(obs) if obs.numel() <= OBSERVED else None,
        "action": _plain(action[:, :n]),
        "reward": _plain(reward[:, :n]),
        "alive": _plain(view.alive[:, :n]),
        "positions": None if positions is None else _plain(positions),
        "landmarks": None if landmarks is None else _plain(landmarks),
        "agents": list(agents.names[:n]),
        "num_agents": total,
    }


def coordination_metrics(seen: Episodes, agents: AgentSpec) -> dict[str, float]:
    """How well the agents of recorded episodes coordinated; METRICS says what each number means.

    What comes after the end of an episode is left out. Numbers that do not apply are missing: choices are compared
    where all acting groups have the same actions, total correlation needs four samples for each joint choice (its bias
    is then some 1/8 nat at most), the Gini and Jain indices need returns of one sign, spectra a fixed undirected
    topology of at most DENSE_SPECTRUM agents. Of more than AGENTS acting agents, that many evenly spaced ones count.

    Args:
        seen: Episodes of any number of copies.
        agents: Who they are.
    """
    going = torch.arange(len(seen.reward)).unsqueeze(1) < seen.length  # [T, B]
    acting = np.concatenate([np.arange(group.start, group.start + group.size) for group in agents.acting])
    chosen = torch.from_numpy(acting[np.linspace(0, len(acting) - 1, min(len(acting), AGENTS)).astype(int)])
    acts = (seen.view.acting & going.unsqueeze(-1)).index_select(-1, chosen)  # [T, B, n]
    alive = (seen.view.alive & going.unsqueeze(-1)).index_select(-1, chosen)
    action, reward = seen.action.index_select(-2, chosen), seen.reward.index_select(-1, chosen)
    found = {} if len(set(agents.actions)) > 1 else _choices(action, acts, going, agents.actions[0])
    found |= _fairness(torch.where(alive, reward, 0.0).sum(0), alive.any(0))
    values = {name: float(x.nanmean()) for name, x in found.items()}
    return {name: x for name, x in values.items() if np.isfinite(x)} | _topology_facts(seen.view.graph, going)


def _choices(action: Tensor, acts: Tensor, going: Tensor, space: ActionSpec) -> dict[str, Tensor]:
    """Metrics of what agents choose, ``action [T, B, n, A]`` where ``acts [T, B, n]`` and ``going [T, B]``."""
    if space.kind != "discrete" or space.components > 1:
        return {"temporal_coherence": metrics.temporal_coherence(action.float(), acts)}
    choice, sizes = torch.where(acts, action[..., 0], 0), space.sizes[0]
    found = {
        "action_synchrony": metrics.action_synchrony(choice[going], sizes, acts[going]),
        "temporal_coherence": metrics.temporal_coherence(one_hot(choice, sizes), acts),
    }
    if choice.shape[-1] > 1 and 4 * float(sizes) ** choice.shape[-1] <= int(going.sum()):
        found["total_correlation"] = metrics.total_correlation(choice[going], acts[going])
    return found


def _fairness(returns: Tensor, lived: Tensor) -> dict[str, Tensor]:
    """How evenly ``returns [B, n]`` are spread over the agents that ``lived [B, n]``."""
    if bool((returns < 0).any()):
        returns = -returns
    if returns.shape[-1] < 2 or bool((returns < 0).any()):
        return {}
    return {"gini": metrics.gini(returns, lived), "jain": metrics.jain(returns, lived)}


def _topology_facts(graph: Graph, going: Tensor) -> dict[str, float]:
    """Number of links over the steps ``going [T, B]`` and, where defined and cheap, how fast averaging would be."""
    up, topology = graph.up(), graph.topology  # [T, B, E]
    if up is not None:
        facts = {"links": float(up.sum(-1)[going].double().mean())}
    else:
        assert topology is not None
        facts = {"links": float(topology.num_edges)}
    if topology is not None and topology.is_undirected and 1 < topology.num_agents <= DENSE_SPECTRUM:
        facts |= {"lambda2": topology.lambda2(), "slem": topology.slem()}
    return facts


def known_columns(env: object, agents: AgentSpec) -> dict[str, slice] | None:
    """Where positions and landmarks stand in the unnamed observations of environments known here, else None.

    Args:
        env: What the environment was made from; only import paths are known.
        agents: Its agents; an observation of unusual width is not trusted.
    """
    n = agents.num_agents
    if env == "mpe2.simple_spread_v3" and agents.obs_dim == 6 * n:  # 2 + 2 + 2n + 2(n - 1) + 2(n - 1)
        return {"position": slice(2, 4), "landmarks": slice(4, 4 + 2 * n)}
    return None


def _places(obs: Tensor, agents: AgentSpec, columns: Mapping[str, slice] | None) -> tuple[Tensor | None, Tensor | None]:
    """Positions ``[T, N, 2]`` of the agents and ``[T, L, 2]`` of the landmarks, or None."""
    parts = [_columns(group.observation.parts) if columns is None else columns for group in agents.groups]
    if not all("position" in found for found in parts):
        return None, None
    positions = obs.new_zeros(*obs.shape[:2], 2)
    for group, found in zip(agents.groups, parts, strict=True):
        positions[:, group.slice] = obs[:, group.slice, found["position"]][..., :2]
    if "landmarks" not in parts[0]:
        return positions, None
    offsets = obs[:, 0, parts[0]["landmarks"]].unflatten(-1, (-1, 2))
    return positions, positions[:, :1] + offsets


def _columns(parts: tuple[Any, ...]) -> dict[str, slice]:
    """Columns of the named parts that can be drawn on a plane."""
    widths = {"position": lambda w: w >= 2, "landmarks": lambda w: w >= 2 and w % 2 == 0}
    return {p.name: slice(p.start, p.stop) for p in parts if p.name in widths and widths[p.name](p.stop - p.start)}


def _edges(graph: Graph, num_agents: int) -> dict[str, Any]:
    """Links among the first agents, once where they never change, else for every step."""
    up = graph.up()
    if graph.topology is not None:
        pairs = graph.topology.edges.T.numpy()
        inside = (pairs < num_agents).all(axis=1)
        if up is None:
            return {"edges_shared": pairs[inside].tolist()}
        open_ = up.cpu().numpy() & inside
        return {"edges": [pairs[row].tolist() for row in open_]}
    assert graph.edges is not None
    assert up is not None
    links = graph.edges.transpose(-1, -2).cpu().numpy()  # [T, E, 2]
    open_ = up.cpu().numpy() & (links < num_agents).all(axis=-1)
    return {"edges": [pairs[row].tolist() for pairs, row in zip(links, open_, strict=True)]}


def _plain(x: Tensor) -> list[Any]:
    """A tensor as nested lists that JSON can hold: floats rounded, None where they are not finite."""
    values = x.detach().cpu().numpy()
    if values.dtype.kind != "f":
        return values.tolist()
    rounded = np.round(values.astype(np.float64), _DIGITS).astype(object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()
