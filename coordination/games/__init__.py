"""Cooperative games: what a coalition of agents is worth."""

from coordination.games.base import Game, as_mask, coalition_masks, evaluate, pack_bits, unpack_bits
from coordination.games.forms import FactorGame, PairwiseGame, TabularGame, tabulate
from coordination.games.played import CriticGame, EnvGame, RestrictedGame

__all__ = [
    "CriticGame",
    "EnvGame",
    "FactorGame",
    "Game",
    "PairwiseGame",
    "RestrictedGame",
    "TabularGame",
    "as_mask",
    "coalition_masks",
    "evaluate",
    "pack_bits",
    "tabulate",
    "unpack_bits",
]
