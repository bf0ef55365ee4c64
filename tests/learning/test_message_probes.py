"""Learned communication on probe worlds: what only a message can tell, and how much of it survives losses."""

from __future__ import annotations

import pytest
from probes import Partner, Told
from test_probes import learned, mean_reward

from marl.networks.messaging.config import (
    ChannelConfig,
    CommNetConfig,
    DropConfig,
    IC3NetConfig,
    NoiseConfig,
    QuantiseConfig,
    TarMACConfig,
)

LOSS = 0.2
BEST = 1 - LOSS + LOSS / 2  # what arrives is known, of the rest half is guessed
POOR = ChannelConfig(quantise=QuantiseConfig(bits=4), noise=NoiseConfig(std=0.1), drop=DropConfig(loss=LOSS))


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
    assert mean_reward(learned(task(), policy=body, iterations=40), task()) > least


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
    found = mean_reward(learned(task(), policy=body, iterations=40), task())
    assert BEST - 0.05 < found < BEST + 0.04  # 512 choices: 3 standard errors


def test_without_links_messages_tell_nothing() -> None:
    task = Partner(linked=False)
    body = CommNetConfig(hidden=32, channel=ChannelConfig())
    assert 0.4 < mean_reward(learned(task, policy=body, iterations=10), task) < 0.6


def test_a_round_before_the_view_tells_of_the_past_alone() -> None:
    once, twice = (CommNetConfig(hidden=32, recurrent=True, rounds=rounds) for rounds in (1, 2))
    assert 0.4 < mean_reward(learned(Partner(), policy=once, iterations=15), Partner()) < 0.6
    assert mean_reward(learned(Partner(), policy=twice, iterations=25), Partner()) > 0.99
