"""What agents tell each other, and what it changes: information between messages and actions, exact from logits.

Probabilities come from logits and sums run over all messages and actions, so nothing is estimated from counts (whose
bias is about ``(|A| - 1)(|M| - 1) / (2 n)`` nats). Information is in nats; divide by ``ln 2`` for bits. ``-inf`` logits
are forbidden choices. Numpy arrays are accepted everywhere.

``M`` messages, ``A`` actions, ``E`` edges from speaker to listener; leading axes ``*`` are samples of states.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coordination.arrays import Array, as_float
from coordination.channel.ledger import sum_by
from coordination.graph import Graph
from coordination.links import endpoints


def mutual_information(joint: Array) -> Tensor:
    """``I(X; Y) = sum p(x, y) log(p(x, y) / (p(x) p(y)))`` of a table of probabilities (Shannon 1948).

    Args:
        joint: ``[*, X, Y]`` non-negative, every table summing to one.

    Returns:
        ``[*]`` nats, in ``[0, min(ln X, ln Y)]``. O(X Y).

    Raises:
        ValueError: If an entry is negative or a table does not sum to one.

    >>> round(mutual_information(torch.eye(4) / 4).item(), 4)
    1.3863
    """
    joint = as_float(joint)
    if joint.ndim < 2:
        raise ValueError(f"joint: expected [*, X, Y], got {tuple(joint.shape)}")
    if bool((joint < 0).any()) or bool(((joint.sum((-1, -2)) - 1).abs() > 1e-4).any()):
        raise ValueError("joint: expected non-negative tables that sum to one")
    return _information(joint)


def speaker_consistency(message_logits: Array, action_logits: Array, mask: Array | None = None) -> Tensor:
    """Speaker consistency ``I(m_i; a_i)``: whether an agent's messages say something about its own actions.

    Positive signalling of Lowe et al. 2019 (arXiv:1903.05168), after Jaques et al. 2019: the joint is the
    mean over samples of ``p(m | s) p(a | s)``, or of ``p(m | s) p(a | s, m)`` where the policy sees its own message.

    Args:
        message_logits: ``[*, N, M]``.
        action_logits: ``[*, N, A]``, or ``[*, N, M, A]`` given each own message.
        mask: ``[*, N]`` bool: samples to count (alive and speaking); None for all.

    Returns:
        ``[N]`` nats, in ``[0, min(ln M, ln A)]``; NaN for an agent without a sample. O(M A) per sample and agent.

    >>> state = 9.0 * torch.eye(2).unsqueeze(1)  # two states; message and action both name the state
    >>> round(speaker_consistency(10 * state, 10 * state).item(), 4)
    0.6931
    """
    return _information(_mean_joint(message_logits, action_logits, mask))


def instantaneous_coordination(message_logits: Array, action_logits: Array, mask: Array | None = None) -> Tensor:
    """Instantaneous coordination ``I(m_i; a_j)``: whether messages and the listener's next actions go together.

    Jaques et al. 2019 (arXiv:1810.08647); Lowe et al. 2019 (arXiv:1903.05168). It is high as well where speaker and
    listener see the same thing and nobody listens; :func:`causal_influence` tells the two apart.

    Args:
        message_logits: ``[*, E, M]`` of the speaker at the tail of each edge.
        action_logits: ``[*, E, A]`` of the listener at its head, or ``[*, E, M, A]`` given each message.
        mask: ``[*, E]`` bool: samples to count; None for all.

    Returns:
        ``[E]`` nats, in ``[0, min(ln M, ln A)]``; NaN for an edge without a sample. O(M A) per sample and edge.

    >>> names = 60 * torch.eye(4).unsqueeze(1)  # four states that both name
    >>> round(instantaneous_coordination(names, names).item(), 4)
    1.3863
    """
    return _information(_mean_joint(message_logits, action_logits, mask))


def causal_influence(message_logits: Array, action_logits: Array) -> Tensor:
    """Causal influence of communication: ``I(m_i; a_j)`` in one state, by intervening on the message.

    The message is set, everything else is held: ``p(m, a) = p(m | s) p(a_j | s, do(m))`` (CIC; Lowe et al. 2019,
    arXiv:1903.05168, algorithm 1). Zero wherever the listener ignores the message, whatever else the two share. It is
    also the expectation, over the influencer's own choices, of the social influence of Jaques et al.

    Args:
        message_logits: ``[*, M]``; zeros intervene evenly.
        action_logits: ``[*, M, A]``: the listener's policy for every message it could have heard.

    Returns:
        ``[*]`` nats, in ``[0, min(ln M, ln A)]``; average it over states. O(M A).

    >>> copies = 50 * torch.eye(4)
    >>> round(causal_influence(torch.zeros(4), copies).item(), 4)
    1.3863
    """
    message, action = _log_probabilities(message_logits), _log_probabilities(action_logits)
    if action.shape[:-1] != message.shape:
        raise ValueError(f"action_logits: expected {tuple(message.shape)} and [A], got {tuple(action.shape)}")
    return _information((message.unsqueeze(-1) + action).exp())


def social_influence(action: Array, policy_logits: Array, listener_logits: Array) -> Tensor:
    """Social influence ``KL(p(a_j | a_i, s) || sum over a of p(a | s) p(a_j | a, s))`` of the action that was taken.

    Jaques et al. 2019 (arXiv:1810.08647). Sum it over listeners with :func:`by_influencer`.

    Args:
        action: ``[*]`` int64 what the influencer did (or said).
        policy_logits: ``[*, M]`` of the influencer.
        listener_logits: ``[*, M, A]`` of the listener, for everything the influencer could have done.

    Returns:
        ``[*]`` nats, in ``[0, -ln p(action | s)]``; infinite only if the action had probability zero. O(M A).

    Raises:
        ValueError: If shapes do not fit.

    >>> copies = 50 * torch.eye(4)
    >>> round(social_influence(torch.tensor(2), torch.zeros(4), copies).item(), 4)
    1.3863
    """
    policy, listener = _log_probabilities(policy_logits), _log_probabilities(listener_logits)
    action = torch.as_tensor(action, device=policy.device)
    if listener.shape[:-1] != policy.shape or action.shape != policy.shape[:-1]:
        raise ValueError(
            f"social_influence: expected action [*], policy_logits [*, M], listener_logits [*, M, A]; got "
            f"{tuple(action.shape)}, {tuple(policy.shape)}, {tuple(listener.shape)}"
        )
    index = action.long()[..., None, None].expand(*action.shape, 1, listener.shape[-1])
    given = listener.gather(-2, index).squeeze(-2).exp()
    marginal = (policy.unsqueeze(-1) + listener).exp().sum(-2)
    ratio = torch.where(given > 0, given, 1.0).log() - torch.where(given > 0, marginal, 1.0).log()
    return (given * ratio).sum(-1)


def by_influencer(influence: Tensor, graph: Graph) -> Tensor:
    """Influence summed over all that an agent speaks to: ``[*, E] -> [*, N]``; links that are down count zero. O(E).

    Jaques et al. 2019 (arXiv:1810.08647).

    >>> from coordination.topology import Topology
    >>> pair = Graph(topology=Topology([[0, 1], [1, 0]], 2))
    >>> by_influencer(torch.tensor([0.5, 2.0]), pair).tolist()  # edges by receiver: 1 -> 0, 0 -> 1
    [2.0, 0.5]
    """
    up = graph.up()
    influence = influence if up is None else torch.where(up, influence, 0.0)
    return sum_by(influence, endpoints(graph, influence.device)[0], graph.num_agents)


def positive_listening(heard_logits: Array, silent_logits: Array) -> Tensor:
    """``sum over a of |p(a | s, m) - p(a | s, nothing)|``: whether hearing something changes what is done.

    After Lowe et al. 2019 (arXiv:1903.05168), with the message blanked out as the comparison.

    Args:
        heard_logits: ``[*, A]`` of the listener with the message.
        silent_logits: ``[*, A]`` with the message replaced by none.

    Returns:
        ``[*]`` in [0, 2]; twice the total variation. O(A).

    >>> positive_listening(torch.tensor([50.0, 0.0]), torch.tensor([0.0, 50.0])).item()
    2.0
    """
    heard, silent = _log_probabilities(heard_logits), _log_probabilities(silent_logits)
    if heard.shape != silent.shape:
        raise ValueError(f"silent_logits: expected {tuple(heard.shape)}, got {tuple(silent.shape)}")
    return (heard.exp() - silent.exp()).abs().sum(-1)


def information_per_bit(information: Array, bits: Array | float) -> Tensor:
    """``information / (bits ln 2)``: how much of what is sent has an effect.

    Own ratio; 1 is the capacity of a noiseless binary channel (Shannon 1948). O(1) for each number.

    Args:
        information: ``[*]`` nats, such as :func:`causal_influence`.
        bits: Bits sent for it, positive.

    Returns:
        ``[*]`` in [0, 1] where a message of ``bits`` bits is coded without waste.

    Raises:
        ValueError: If bits are not positive.

    >>> information_per_bit(torch.tensor([math.log(4)]), 2).tolist()
    [1.0]
    """
    bits = torch.as_tensor(bits, dtype=torch.float64)
    if not bool((bits > 0).all()):
        raise ValueError(f"bits: must be positive, got {bits.min().item()}")
    return (as_float(information) / (bits * math.log(2))).to(as_float(information).dtype)


def value_of_communication(with_messages: float, without: float, oracle: float) -> float:
    """``(J_messages - J_none) / (J_oracle - J_none)``: the part of what communication could bring that it does bring.

    Normalised as scores between a baseline and an oracle usually are. O(1).

    Args:
        with_messages: Return of the policy at hand.
        without: Return of a policy trained without messages (not the same policy deafened).
        oracle: Return where everyone knows everything.

    Returns:
        1 at the oracle, 0 without use, negative where messages do harm.

    Raises:
        ValueError: If the oracle is no better than silence: there is nothing to gain.

    >>> value_of_communication(0.9, 0.5, 1.0)
    0.8
    """
    if not oracle > without:
        raise ValueError(f"oracle: must return more than the policy without messages, got {oracle} and {without}")
    return (with_messages - without) / (oracle - without)


def communication_efficiency(with_messages: float, without: float, bits: float) -> float:
    """``(J_messages - J_none) / bits``: reward gained per bit sent.

    O(1).

    Args:
        with_messages, without: Returns, as in :func:`value_of_communication`.
        bits: Bits sent per episode, positive.

    >>> communication_efficiency(10.0, 6.0, 8.0)
    0.5
    """
    if not bits > 0:
        raise ValueError(f"bits: must be positive, got {bits}")
    return (with_messages - without) / bits


def _mean_joint(message_logits: Array, action_logits: Array, mask: Array | None) -> Tensor:
    """Mean over samples of ``p(m | s) p(a | s, m)``: ``[*, X, M], [*, X, (M,) A] -> [X, M, A]``."""
    message, action = _log_probabilities(message_logits), _log_probabilities(action_logits)
    if action.ndim == message.ndim and action.shape[:-1] == message.shape[:-1] and message.ndim > 1:
        action = action.unsqueeze(-2)
    elif action.ndim != message.ndim + 1 or action.shape[:-1] != message.shape or message.ndim < 2:
        raise ValueError(
            f"expected message_logits [*, X, M] and action_logits [*, X, A] or [*, X, M, A], got "
            f"{tuple(message.shape)} and {tuple(action.shape)}"
        )
    joint = (message.unsqueeze(-1) + action).exp()
    joint = joint.reshape(-1, *joint.shape[-3:])
    if mask is None:
        return joint.mean(0)
    mask = torch.as_tensor(mask, device=joint.device)
    if mask.shape != message.shape[:-1]:
        raise ValueError(f"mask: expected {tuple(message.shape[:-1])}, got {tuple(mask.shape)}")
    keep = mask.reshape(joint.shape[:2])
    total = torch.where(keep[..., None, None], joint, 0.0).sum(0)
    return total / keep.sum(0)[:, None, None]


def _information(joint: Tensor) -> Tensor:
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    ratio = torch.where(joint > 0, joint, 1.0).log() - torch.where(joint > 0, independent, 1.0).log()
    return (joint * ratio).sum((-1, -2)).clamp(min=0)


def _log_probabilities(logits: Array) -> Tensor:
    return as_float(logits).log_softmax(-1)
