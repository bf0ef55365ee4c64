"""Consensus: how agents that only hear their neighbours agree, and how fast, over which links, despite whom."""

from coordination.consensus.acceleration import Chebyshev, FiniteTime, leja_order, one_peer_exponential
from coordination.consensus.averaging import Averages, Averaging, convergence_factor, rounds_to
from coordination.consensus.base import Consensus, ConsensusResult, disagreement, run
from coordination.consensus.dynamic import Delayed, DynamicAverage, EventTriggered, delay_margin, tracking_error
from coordination.consensus.extremum import Extremum
from coordination.consensus.gossip import Gossip, gossip_rate, gossip_rounds
from coordination.consensus.links import both_ways, mix
from coordination.consensus.optimisation import ADMM, DGD, EXTRA, DIGing, extra_step_limit
from coordination.consensus.pooling import LogLinearPool, gaussian_pool, log_linear_pool
from coordination.consensus.pushsum import PushSum, push_matrix
from coordination.consensus.resilient import Resilient
from coordination.topology.robustness import Certificate, max_robustness, robust_topology, robustness

__all__ = [
    "ADMM",
    "DGD",
    "EXTRA",
    "Averages",
    "Averaging",
    "Certificate",
    "Chebyshev",
    "Consensus",
    "ConsensusResult",
    "DIGing",
    "Delayed",
    "DynamicAverage",
    "EventTriggered",
    "Extremum",
    "FiniteTime",
    "Gossip",
    "LogLinearPool",
    "PushSum",
    "Resilient",
    "both_ways",
    "convergence_factor",
    "delay_margin",
    "disagreement",
    "extra_step_limit",
    "gaussian_pool",
    "gossip_rate",
    "gossip_rounds",
    "leja_order",
    "log_linear_pool",
    "max_robustness",
    "mix",
    "one_peer_exponential",
    "push_matrix",
    "robust_topology",
    "robustness",
    "rounds_to",
    "run",
    "tracking_error",
]
