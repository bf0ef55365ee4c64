"""What every network sees of a view: observations of living agents, normalised, images read, an identity attached."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from envs.base import View
from envs.spec import AgentSpec, Group
from marl.networks.config import Identity, ImageConfig
from marl.networks.layers.images import ImageEncoder
from marl.networks.layers.normalise import RunningMoments
from marl.networks.layers.sharing import Sharing

MAX_ONEHOT = 64  # above this an agent's one-hot would dominate the input; use an embedding
EMBEDDING_DIM = 16
BYTE = 255.0


class Inputs(nn.Module):
    """Views to network inputs ``[*, N, out_dim]``; the rows of dead agents are zero, whatever their slots hold.

    Bytes are divided by 255. Where ``images`` says how, each group's images become features, which stand behind its
    other columns; both are padded to the widest group.

    Args:
        agents: Who is seen.
        identity: ``none`` leaves the network equivariant to permutations; ``onehot`` (up to 64 agents) and
            ``embedding`` tell agents apart that share weights.
        normalise: Whether observations are normalised by running moments, updated by the algorithm; not images.
        generator: Source of the initial weights.
        images: How images are read; None takes their pixels one by one.
        sharing: Who shares what reads images; None for all.
    """

    identity: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        agents: AgentSpec,
        identity: Identity,
        normalise: bool,
        generator: torch.Generator,
        images: ImageConfig | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        super().__init__()
        n = agents.num_agents
        if identity == "onehot" and n > MAX_ONEHOT:
            raise ValueError(f"identity: onehot is for up to {MAX_ONEHOT} agents, got {n}; use embedding or none")
        some = any(part.image for group in agents.groups for part in group.observation.parts)
        self.images = None if images is None or not some else Images(agents, images, sharing, generator)
        columns = agents.obs_dim if self.images is None else self.images.rest_dim
        self.moments = RunningMoments(agents, columns) if normalise and columns else None
        self.register_buffer("scale", _scale(agents), persistent=False)
        if identity == "onehot":
            self.register_buffer("identity", torch.eye(n), persistent=False)
        elif identity == "embedding":
            self.identity = nn.Parameter(torch.randn(n, EMBEDDING_DIM, generator=generator) / EMBEDDING_DIM**0.5)
        else:
            self.identity = None
        self.out_dim = columns + (0 if self.images is None else self.images.out_dim)
        self.out_dim += 0 if self.identity is None else self.identity.shape[-1]

    def forward(self, view: View) -> Tensor:
        """The inputs of all agents in ``view``."""
        alive, obs = view.alive.unsqueeze(-1), self._numbers(view.obs)
        x = obs if self.images is None else self.images.rest(obs)
        x = torch.where(alive, x if self.moments is None else self.moments.normalise(x), 0.0)
        pieces = [x]
        if self.images is not None:
            pieces.append(torch.where(alive, self.images(torch.where(alive, obs, 0.0)), 0.0))
        if self.identity is not None:
            pieces.append(self.identity.expand(*x.shape[:-1], -1))
        return torch.cat(pieces, -1) if len(pieces) > 1 else x

    def update(self, view: View) -> None:
        """Merge what living agents see into the running moments, if there are any."""
        if self.moments is not None:
            obs = self._numbers(view.obs)
            self.moments.update(obs if self.images is None else self.images.rest(obs), view.alive)

    def _numbers(self, obs: Tensor) -> Tensor:
        """Observations as floats, bytes between 0 and 1."""
        if obs.dtype == torch.uint8:
            return obs / BYTE
        return obs if self.scale is None else obs * self.scale


class Images(nn.Module):
    """Observations with images in them, taken apart: features of the images, and all other columns.

    Args:
        agents: Whose observations; groups may differ.
        config: How images are read.
        sharing: Who shares what reads them: ``all`` (or None) by the shape of the image, else agents of one group.
        generator: Source of the initial weights.

    Attributes:
        out_dim: Width of the widest group's features.
        rest_dim: Number of other columns of the widest group.
    """

    def __init__(
        self, agents: AgentSpec, config: ImageConfig, sharing: Sharing | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.groups = agents.groups
        self.encoders = nn.ModuleDict()
        self._reads: list[list[tuple[slice, str]]] = []  # for each group, columns of its images and who reads them
        everyone = sharing is None or sharing.mode == "all"
        for group in agents.groups:
            reads = []
            for k, part in enumerate(p for p in group.observation.parts if p.image is not None):
                assert part.image is not None
                name = "x".join(map(str, part.image)) + f"_{k}" + ("" if everyone else f"_{group.start}")
                if name not in self.encoders:
                    own = Sharing([0] * group.size, "all") if sharing is None or everyone else sharing.part(group.slice)
                    self.encoders[name] = ImageEncoder(part.image, config, own, generator)
                reads.append((slice(part.start, part.stop), name))
            self._reads.append(reads)
        self._rests = [_rest(group) for group in agents.groups]
        self.out_dim = max(len(reads) for reads in self._reads) * config.features
        self.rest_dim = max(sum(s.stop - s.start for s in rest) for rest in self._rests)

    def forward(self, obs: Tensor) -> Tensor:
        """Features ``[*, N, out_dim]`` of the images in ``obs [*, N, O]``."""
        rows = [
            [self.encoders[name](obs[..., group.slice, columns]) for columns, name in reads]
            for group, reads in zip(self.groups, self._reads, strict=True)
        ]
        return self._stack(obs, rows, self.out_dim)

    def rest(self, obs: Tensor) -> Tensor:
        """The other columns ``[*, N, rest_dim]``."""
        rows = [
            [obs[..., group.slice, columns] for columns in rest]
            for group, rest in zip(self.groups, self._rests, strict=True)
        ]
        return self._stack(obs, rows, self.rest_dim)

    def _stack(self, obs: Tensor, rows: list[list[Tensor]], width: int) -> Tensor:
        """Pieces of each group side by side, padded to ``width``, and groups on the agent axis."""
        padded = []
        for group, pieces in zip(self.groups, rows, strict=True):
            missing = width - sum(piece.shape[-1] for piece in pieces)
            padded.append(torch.cat([*pieces, obs.new_zeros(*obs.shape[:-2], group.size, missing)], -1))
        return torch.cat(padded, -2)


def _rest(group: Group) -> list[slice]:
    return [slice(part.start, part.stop) for part in group.observation.parts if part.image is None]


def _scale(agents: AgentSpec) -> Tensor | None:
    """``[N, O]`` one over 255 where bytes stand among other numbers, one elsewhere; None without any bytes."""
    scale = torch.ones(agents.num_agents, agents.obs_dim)
    for group in agents.groups:
        for part in group.observation.parts:
            if part.byte:
                scale[group.slice, part.start : part.stop] = 1 / BYTE
    return scale if bool((scale != 1).any()) else None
