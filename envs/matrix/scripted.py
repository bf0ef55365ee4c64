"""Hand-written policies for the lever and the parity game: optimal where agents hear all others, honest where not."""

from __future__ import annotations

from torch import Tensor

from coordination.gather import neighbour_sum
from envs.base import View
from envs.spec import AgentSpec


def lever_by_rank(view: View, agents: AgentSpec) -> Tensor:
    """Pull the lever of one's rank among the identities heard: all different, where everybody hears everybody.

    Args:
        view: Of :class:`envs.matrix.lever.Lever`: identities, one-hot.
        agents: Who they are; not needed.

    Returns:
        ``[*, N, 1]`` int64 levers.
    """
    heard = neighbour_sum(view.obs, view.graph).cumsum(-1)  # [*, N, pool]: how many are heard up to each identity
    return (heard * view.obs).sum(-1, keepdim=True).long()


def parity_of_heard(view: View, agents: AgentSpec) -> Tensor:
    """Answer the parity of one's own bit and those heard: right, where everybody hears everybody.

    Args:
        view: Of :class:`envs.matrix.parity.Parity`: bits.
        agents: Who they are; not needed.

    Returns:
        ``[*, N, 1]`` int64 answers.
    """
    return (view.obs + neighbour_sum(view.obs, view.graph)).long() % 2
