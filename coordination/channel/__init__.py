"""Imperfect links: quantised, noisy, lossy, slow, rationed and partitioned, with an exact ledger of what was sent.

>>> channel = Quantise(8) | Drop(0.1, burst=3.0) | Delay(2)
>>> channel
Channel(Quantise(bits=8) | Drop(loss=0.1, burst=3.0) | Delay(steps=2))
"""

from coordination.channel.base import Channel, ChannelState, Stage
from coordination.channel.budget import Budget
from coordination.channel.delay import Delay
from coordination.channel.draws import Keyed
from coordination.channel.impairments import Drop, Noise, Partition
from coordination.channel.ledger import Ledger
from coordination.channel.packet import Inbox, Packet
from coordination.channel.quantise import Quantise

__all__ = [
    "Budget",
    "Channel",
    "ChannelState",
    "Delay",
    "Drop",
    "Inbox",
    "Keyed",
    "Ledger",
    "Noise",
    "Packet",
    "Partition",
    "Quantise",
    "Stage",
]
