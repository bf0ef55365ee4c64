"""Byzantine-resilient consensus: agents aggregate what they hear by rules that f false values cannot move far."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from coordination.aggregation import (
    Convention,
    centred_clipping,
    geometric_median,
    krum,
    krum_needs,
    median,
    trimmed_around,
    trimmed_mean,
)
from coordination.arrays import as_float
from coordination.channel import Inbox
from coordination.consensus.averaging import Averages
from coordination.consensus.base import Consensus
from coordination.consensus.links import cached, in_degree, senders, up_links, whole
from coordination.graph import Graph
from coordination.links import as_graph
from coordination.names import unknown
from coordination.topology.base import Topology
from coordination.topology.robustness import robustness

Rule = Literal["wmsr", "trimmed_mean", "median", "geometric_median", "krum", "centred_clipping"]
RULES = ("wmsr", "trimmed_mean", "median", "geometric_median", "krum", "centred_clipping")


@dataclasses.dataclass(frozen=True)
class Resilient(Consensus[Averages]):
    """Consensus among agents of which some lie: ``x_i <- rule(x_i, values heard)``.

    ``wmsr`` (LeBlanc, Zhang, Koutsoukos and Sundaram 2013) drops up to f values above and f below one's own and
    averages the rest. With at most f malicious agents in all, the others agree iff the graph is (f+1, f+1)-robust;
    with at most f among anyone's neighbours, (2f+1)-robustness suffices and (f+1)-robustness is needed. Either way
    normal agents never leave the interval their values started in. Connectivity is not enough. The other rules
    aggregate one's own value and those heard as :mod:`coordination.aggregation` defines them, and have guarantees
    where everyone hears everyone.

    To simulate liars, overwrite their values between steps. An agent that hears too little for its rule in some round
    keeps its value. Neighbours are gathered in groups of similar degree: O(E log d D) time and O(E D) memory a sample.

    Args:
        rule: One of the above.
        f: How many may be false, in all or around anyone.
        radius: Clipping radius of ``centred_clipping``, around one's own value.
        convention: Which ``krum``.

    >>> from coordination.topology import Topology
    >>> graph = Topology([[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2]], 4)
    >>> protocol = Resilient("wmsr", f=1)
    >>> protocol.step(protocol.init(torch.tensor([[0.0], [1.0], [2.0], [99.0]]), graph), graph).value.squeeze(-1)
    tensor([ 1.0000,  1.5000,  1.5000, 34.0000])
    """

    rule: Rule
    f: int
    radius: float | None = None
    convention: Convention = "published"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(unknown("rule", self.rule, RULES))
        if self.f < 0:
            raise ValueError(f"f: must not be negative, got {self.f}")
        if (self.radius is None) == (self.rule == "centred_clipping"):
            raise ValueError(f"radius: belongs to 'centred_clipping' and is needed there, got {self.radius}")
        if self.convention != "published" and self.rule != "krum":
            raise ValueError(f"convention: belongs to 'krum', got {self.convention!r} with {self.rule!r}")

    @property
    def needed(self) -> int:
        """Fewest values, one's own included, that the rule is defined for with f false ones among them."""
        if self.rule == "wmsr":
            return 1
        return krum_needs(self.f, self.convention) if self.rule == "krum" else 2 * self.f + 1

    def init(self, x: Tensor, graph: Topology | Graph) -> Averages:
        """See :meth:`Consensus.init`.

        Raises:
            ValueError: If f is too large for some agent that has links.
        """
        degree = in_degree(graph)
        few = (degree > 0) & (degree + 1 < self.needed)
        if bool(few.any()):
            agent = int(few.nonzero()[0, -1])
            raise ValueError(
                f"Resilient: {self.rule!r} with f = {self.f} needs {self.needed} values, its own included; "
                f"agent {agent} hears {int(degree[few][0])} neighbours: lower f or add links"
            )
        return Averages(as_float(x))

    def step(
        self,
        state: Averages,
        graph: Topology | Graph,
        link_up: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Averages:
        """See :meth:`Consensus.step`."""
        return self._combine(state.value, None, graph, up_links(graph, link_up))

    def hear(self, state: Averages, graph: Topology | Graph, inbox: Inbox) -> Averages:
        """See :meth:`Consensus.hear`: the rule is applied to what arrived; late values are as good as false ones."""
        return self._combine(state.value, inbox.value, graph, inbox.arrived)

    def _combine(self, x: Tensor, heard: Tensor | None, graph: Topology | Graph, up: Tensor | None) -> Averages:
        """``heard [*, E, D]``: the message on every edge; None for the sender's value, not laid out by edge."""
        topology = as_graph(graph).topology
        if topology is None:
            return Averages(self._per_sample(x, heard, as_graph(graph), up))
        if topology.num_edges == 0:
            return Averages(x)
        source = topology.edges_on(x.device)[0]
        parts, agents = [], []
        for members, edges, valid in _groups(topology, x.device):
            mask = valid if up is None else valid & up[..., edges]
            told = x[..., source[edges], :] if heard is None else heard[..., edges, :]
            parts.append(self._aggregate(x[..., members, :], told, mask))
            agents.append(members)
        return Averages(torch.cat(parts, -2)[..., torch.cat(agents).argsort(), :])

    def check(self, graph: Topology | Graph, batch: int = 1, alive: Tensor | None = None) -> None:
        """Refuse unconnected graphs, and for ``wmsr`` those shown not to be (f+1, f+1)-robust.

        A graph of which it is not known passes: :func:`robustness` says which is which.
        """
        super().check(graph, batch, alive)
        topology = whole(graph)
        if self.rule == "wmsr" and topology is not None:
            certificate = robustness(topology, self.f + 1, self.f + 1)
            if certificate.holds is False:
                raise ValueError(
                    f"Resilient: f = {self.f} is too large, {topology.name!r} is not "
                    f"({self.f + 1}, {self.f + 1})-robust: {certificate.reason}"
                )

    def _aggregate(self, own: Tensor, heard: Tensor, mask: Tensor) -> Tensor:
        """New values ``[*, M, D]`` of agents that hold ``own [*, M, D]`` and hear ``heard [*, M, K, D]``."""
        mask = mask.expand(heard.shape[:-1])
        if self.rule == "wmsr":
            return trimmed_around(own, heard, self.f, mask)
        values = torch.cat([own.unsqueeze(-2), heard], -2)
        mask = torch.cat([torch.ones_like(mask[..., :1]), mask], -1)
        enough = mask.sum(-1, keepdim=True) >= self.needed
        if values.shape[-2] < self.needed:
            return own
        mask = mask | ~enough  # any result will do where it is not used
        if self.rule == "trimmed_mean":
            result = trimmed_mean(values, self.f, mask)
        elif self.rule == "median":
            result = median(values, mask)
        elif self.rule == "geometric_median":
            result = geometric_median(values, mask)
        elif self.rule == "krum":
            result = krum(values, self.f, mask, self.convention)
        else:
            assert self.radius is not None
            result = centred_clipping(values, self.radius, own, mask=mask)
        return torch.where(enough, result, own)

    def _per_sample(self, x: Tensor, heard: Tensor | None, graph: Graph, up: Tensor | None) -> Tensor:
        """The step where every sample has edges of its own, padded to the largest degree."""
        assert graph.edges is not None
        assert graph.row_start is not None
        assert up is not None
        count = graph.row_start.diff(dim=-1)
        width = max(int(count.max()), 1)
        place = torch.arange(width, device=x.device)
        last = max(graph.edges.shape[-1] - 1, 0)
        edges = (graph.row_start[..., :-1, None] + place).clamp(max=last).flatten(-2)
        valid = (place < count.unsqueeze(-1)) & up.take_along_dim(edges, -1).unflatten(-1, (-1, width))
        told = (senders(x, graph) if heard is None else heard).take_along_dim(edges.unsqueeze(-1), -2)
        return self._aggregate(x, told.unflatten(-2, (-1, width)), valid)


def _groups(topology: Topology, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Agents of similar degree: members ``[M]``, their incoming edges ``[M, K]`` and which of these exist.

    K is the largest degree of a group and less than twice the smallest, so all groups together hold under 2 E edges.
    """

    def build() -> list[tuple[Tensor, Tensor, Tensor]]:
        degree, start = topology.in_degree, topology.row_start[:-1]
        level = torch.where(degree > 0, degree.double().log2().floor().long(), -1)
        groups = []
        for value in level.unique().tolist():
            members = (level == value).nonzero().squeeze(-1)
            place = torch.arange(max(int(degree[members].max()), 1))
            valid = place < degree[members].unsqueeze(-1)
            edges = torch.where(valid, start[members].unsqueeze(-1) + place, 0)
            groups.append((members.to(device), edges.to(device), valid.to(device)))
        return groups

    return cached(topology, ("groups", device), build)
