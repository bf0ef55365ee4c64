"""Learned communication on probe worlds: what only a message can tell, and how much of it survives losses."""

from __future__ import annotations

import pytest

from marl.networks.messaging.config import (
    ChannelConfig,
    CommNetConfig,
    DropConfig,
    IC3NetConfig,
    NoiseConfig,
    QuantiseConfig,
    TarMACConfig,
)
from marl.testing import Probe, check_algorithm
from marl.testing.company import Partner, Told

LOSS = 0.2
BEST = 1 - LOSS + LOSS / 2  # what arrives is known, of the rest half is guessed
POOR = ChannelConfig(quantise=QuantiseConfig(bits=4), noise=NoiseConfig(std=0.1), drop=DropConfig(loss=LOSS))


def mean_return(task: Probe, body: object, iterations: int) -> float:
    table = check_algorithm("mappo", [task], policy=body, memory=None, iterations=iterations)
    return table.findings[0].found


@pytest.mark.parametrize(
    ("task", "body"),
    [
        (Partner, CommNetConfig(hidden=32)),
        (Told, TarMACConfig(hidden=32)),
        (Told, IC3NetConfig(hidden=32)),
    ],
    ids=["commnet", "tarmac", "ic3net"],
)
def test_messages_tell_what_only_they_can(task: type[Partner | Told], body: object) -> None:
    least = 0.96 if isinstance(body, IC3NetConfig) else 0.99  # gates are never quite sure to be open
    assert mean_return(task(), body, 40) > least


@pytest.mark.parametrize(
    ("task", "body"),
    [
        (Partner, CommNetConfig(hidden=32, channel=POOR)),
        pytest.param(Told, TarMACConfig(hidden=32, channel=POOR), marks=pytest.mark.slow),
        pytest.param(Told, IC3NetConfig(hidden=32, channel=POOR), marks=pytest.mark.slow),
    ],
    ids=["commnet", "tarmac", "ic3net"],
)
def test_over_a_noisy_lossy_channel_what_arrives_is_used(task: type[Partner | Told], body: object) -> None:
    found = mean_return(task(), body, 40)
    assert BEST - 0.05 < found < BEST + 0.04  # 512 choices: 3 standard errors


def test_without_links_messages_tell_nothing() -> None:
    task = Partner(linked=False)
    body = CommNetConfig(hidden=32, channel=ChannelConfig())
    assert 0.4 < mean_return(task, body, 10) < 0.6


def test_a_round_before_the_view_tells_of_the_past_alone() -> None:
    once, twice = (CommNetConfig(hidden=32, recurrent=True, rounds=rounds) for rounds in (1, 2))
    assert 0.4 < mean_return(Partner(), once, 15) < 0.6
    assert mean_return(Partner(), twice, 25) > 0.99
