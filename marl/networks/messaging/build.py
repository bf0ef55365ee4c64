"""Bodies of learned communication from configuration."""

from __future__ import annotations

import torch
from torch import nn

from marl.networks.layers.sharing import Sharing
from marl.networks.messaging.base import Communication, Forgetful, Messenger
from marl.networks.messaging.commnet import CommNet, IC3Net
from marl.networks.messaging.config import CommNetConfig, IC3NetConfig, MessagingConfig, TarMACConfig
from marl.networks.messaging.tarmac import TarMAC

PROTOCOLS: dict[type[MessagingConfig], type[nn.Module]] = {
    CommNetConfig: CommNet,
    IC3NetConfig: IC3Net,
    TarMACConfig: TarMAC,
}


def build_messaging(
    config: MessagingConfig, in_dim: int, sharing: Sharing, generator: torch.Generator, encoders: Sharing | None = None
) -> nn.Module:
    """The body of a policy or critic whose agents talk; ``encoders``, or else ``sharing``, says who shares encoders."""
    own = {**config.model_dump(exclude={"name", "channel", "hidden"}), "encoders": encoders}
    protocol: Communication = PROTOCOLS[type(config)](in_dim, config.hidden, sharing, generator, **own)  # type: ignore[assignment]
    if protocol.state_dim == 0 and config.channel is None:
        return Forgetful(protocol)
    return Messenger(protocol, len(sharing.owner), config.channel)
