"""The native environments by name, and scripted policies to compare learned ones with; loads no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from coordination.names import unknown


@dataclass(frozen=True)
class Entry:
    """One native environment.

    Attributes:
        target: The task class, ``module:Class``.
        summary: What the agents have to do.
        agents: How many there are.
        optimum: The best return known, or what bounds it.
        source: Where the task comes from.
        scripted: A hand-written policy for it, ``module:function``, or None.
        spaces: What each agent sees and chooses from, with default arguments: ``obs 18, action 5 choices``, groups of
            agents by name. A test compares it with the task.
    """

    target: str
    summary: str
    agents: str
    optimum: str
    source: str
    scripted: str | None = None
    spaces: str = ""


ENVIRONMENTS = {
    "adversary": Entry(
        target="envs.particle.adversary:Adversary",
        summary="good agents reach a goal without giving it away to an adversary; equal to mpe2.simple_adversary_v3",
        agents="1 adversary against 1 or more good (2)",
        optimum="depends on the opponent; random play pays -29 and 8, scripted play -17.6 and 9.2",
        source="Lowe et al. 2017, arXiv:1706.02275; physics of mpe2 1.1",
        scripted="envs.particle.scripted:adversary_cover",
        spaces="adversary: obs 8, action 5 choices; agent: obs 10, action 5 choices",
    ),
    "allocation": Entry(
        target="envs.population.allocation:Allocation",
        summary="modules with different skills form coalitions for weighted tasks in their reach",
        agents="4 to 100,000 (16); fewer with max_need=1",
        optimum="best assignment of a step, exact or bounded; 15.34 a step for 16 modules with renew=False",
        source="after Shehory and Kraus 1998, Artificial Intelligence 101",
        scripted="envs.population.scripted:take_turns",
        spaces="lifter: obs 21, action 4 choices; welder: obs 21, action 4 choices",
    ),
    "climbing": Entry(
        target="envs.matrix.games:Climbing",
        summary="two agents climb to a joint action guarded by penalties",
        agents="2",
        optimum="11 a step",
        source="Claus and Boutilier 1998, AAAI",
        spaces="obs 1, action 3 choices",
    ),
    "deliberation": Entry(
        target="envs.population.deliberation:Deliberation",
        summary="modules pool private evidence by reports over links and are scored on the probability they state",
        agents="2 to 100,000 (16)",
        optimum="score of the pooled posterior in closed form: -0.3563 at 16 modules; -0.6628 alone",
        source="signal detection, Green and Swets 1966; consensus, Xiao and Boyd 2004",
        scripted="envs.population.scripted:pool_evidence",
        spaces="obs 6, action 1 real",
    ),
    "flocking": Entry(
        target="envs.population.flocking:Flocking",
        summary="modules that move agree on a velocity, or with task=rendezvous on a place, hearing those near them",
        agents="2 to 100,000 (16)",
        optimum="least_cost bounds it; full speed to the mean pays 1.02 times that (12 modules) or less (more)",
        source="Tolstaya et al. 2019, arXiv:1903.10527; Jadbabaie, Lin and Morse 2003",
        scripted="envs.population.flocking:local_averaging",
        spaces="obs 7, action 2 reals",
    ),
    "foraging": Entry(
        target="envs.grid.foraging:Foraging",
        summary="players load food that only enough of them together can; setting=8x8-2p-2f-coop; equal to lbforaging",
        agents="1 or more (2); published with 2 to 4",
        optimum="1 an episode to the team; random play earns .005 (8x8-2p-2f-coop) to .18 (8x8-2p-3f)",
        source="Papoudakis et al. 2021, arXiv:2006.07869; lbforaging 2.0.0",
        spaces="obs 15, action 6 choices",
    ),
    "ising": Entry(
        target="envs.population.ising:Ising",
        summary="modules choose spins and are paid for agreeing with those they hear",
        agents="2 to 100,000 (16)",
        optimum="half the coupling a step for every one-way edge; in equilibrium Onsager's closed form",
        source="Yang et al. 2018, arXiv:1802.05438; Onsager 1944",
        scripted="envs.population.ising:follow_field",
        spaces="obs 2, action 2 choices",
    ),
    "lever": Entry(
        target="envs.matrix.lever:Lever",
        summary="those called from a pool of 500 pull different levers; play it with sharing=all identity=none",
        agents="1 to the pool of 500 (5)",
        optimum="1 to each agent with communication, 0.6740 without",
        source="Sukhbaatar et al. 2016, arXiv:1605.07736, section 4.1",
        scripted="envs.matrix.scripted:lever_by_rank",
        spaces="obs 500, action 5 choices",
    ),
    "lq_consensus": Entry(
        target="envs.population.lq_consensus:LQConsensus",
        summary="modules on a topology push their values together at the least linear-quadratic cost",
        agents="2 to 100,000 (16)",
        optimum="Riccati at any size; 2.6366 a module on large rings",
        source="Kalman 1960; Laplacian modes, Olfati-Saber, Fax and Murray 2007",
        scripted="envs.population.riccati:riccati",
        spaces="obs 2, action 1 real",
    ),
    "navigation": Entry(
        target="envs.particle.navigation:Navigation",
        summary="agents go to their own goals among obstacles, sensing what is near; entities are nodes of the graph",
        agents="1 to 64 with links, any number without (3)",
        optimum="not known in closed form; scripted 238 an episode for 3 agents, all at their goals throughout 375",
        source="Nayak et al. 2023, arXiv:2211.02127; physics of the original particle worlds",
        scripted="envs.particle.navigation:navigation_greedy",
        spaces="agent: obs 9, action 5 choices; goal: obs 9, action none; obstacle: obs 9, action none",
    ),
    "parity": Entry(
        target="envs.matrix.parity:Parity",
        summary="all say whether their private bits hold an odd number of ones; communication=false cuts the links",
        agents="2 or more (4)",
        optimum="1 to each agent with communication, 1/2 without",
        source="communication complexity, Kushilevitz and Nisan 1997",
        scripted="envs.matrix.scripted:parity_of_heard",
        spaces="obs 1, action 2 choices",
    ),
    "penalty": Entry(
        target="envs.matrix.games:Penalty",
        summary="two agents pick one of two equal optima without a word",
        agents="2",
        optimum="10 a step",
        source="Claus and Boutilier 1998, AAAI",
        spaces="obs 1, action 3 choices",
    ),
    "predator_prey": Entry(
        target="envs.grid.predator_prey:PredatorPrey",
        summary="it takes two to catch a prey, and trying alone costs; setting=dicg|wqmix",
        agents="2 or more (8)",
        optimum="at most 10 P - 0.1 (dicg; 72 published at a punishment of -1.25) or 10 min(P, N / 2) (wqmix)",
        source="Li et al. 2021, arXiv:2006.11438; Rashid et al. 2020, arXiv:2006.10800",
        spaces="obs 53, action 5 choices",
    ),
    "qplex": Entry(
        target="envs.matrix.games:Qplex",
        summary="game=1, 2 or 3 of two agents, which no monotone mixer represents; steps=1 as in the paper",
        agents="2",
        optimum="10.4, 8 or 8 a step by game=1, 2 or 3",
        source="Wang et al. 2021, arXiv:2008.01062",
        spaces="obs 1, action 3 choices",
    ),
    "reference": Entry(
        target="envs.particle.reference:Reference",
        summary="two agents tell each other where to go; equal to mpe2.simple_reference_v3",
        agents="2",
        optimum="not known; naming the goal attains a team sum of -17.3 discrete, -13.3 continuous",
        source="Lowe et al. 2017, arXiv:1706.02275; physics of mpe2 1.1",
        scripted="envs.particle.scripted:reference_words",
        spaces="obs 21, action 50 choices",
    ),
    "speaker_listener": Entry(
        target="envs.particle.speaker_listener:SpeakerListener",
        summary="one knows the goal and speaks, the other moves; equal to mpe2.simple_speaker_listener_v4",
        agents="2",
        optimum="team sum at most -14.6 discrete, -11.43 continuous; naming the goal attains -15.2, -12.1",
        source="Lowe et al. 2017, arXiv:1706.02275; physics of mpe2 1.1",
        scripted="envs.particle.scripted:speaker_listener_words",
        spaces="speaker: obs 3, action 3 choices; listener: obs 11, action 5 choices",
    ),
    "spread": Entry(
        target="envs.particle.spread:Spread",
        summary="agents cover all landmarks and keep from colliding; equal to mpe2.simple_spread_v3",
        agents="1 to 10 as in mpe2, any number here (3)",
        optimum="not known in closed form; the scripted assignment bounds it from below",
        source="Lowe et al. 2017, arXiv:1706.02275; physics of mpe2 1.1",
        scripted="envs.particle.scripted:spread_assignment",
        spaces="obs 18, action 5 choices",
    ),
    "stag_hunt": Entry(
        target="envs.matrix.games:StagHunt",
        summary="two hunters go for the stag together or each for a safe hare, with payoffs of their own",
        agents="2",
        optimum="4 a step to each; the equilibrium of hares pays 3",
        source="Rousseau 1755; Skyrms 2001, Proc. APA 75",
        spaces="obs 1, action 2 choices",
    ),
    "sysadmin": Entry(
        target="envs.population.sysadmin:SysAdmin",
        summary="machines fail and failure spreads; each administrator reboots the own one at a price",
        agents="2 to 100,000 (16)",
        optimum="exact up to 8 machines (ring of 4: 71.140 at discount .95); reward factorises by machine",
        source="Guestrin et al. 2003, JAIR 19",
        scripted="envs.population.sysadmin:reboot_down",
        spaces="obs 2, action 2 choices",
    ),
    "tag": Entry(
        target="envs.particle.tag:Tag",
        summary="slow adversaries chase faster prey among obstacles; equal to mpe2.simple_tag_v3",
        agents="1 or more adversaries (3) against 1 or more good (1)",
        optimum="depends on the opponent; random play pays 4.6 and -16.8, scripted play 12 and -15",
        source="Lowe et al. 2017, arXiv:1706.02275; physics of mpe2 1.1",
        scripted="envs.particle.scripted:tag_chase",
        spaces="adversary: obs 16, action 5 choices; agent: obs 14, action 5 choices",
    ),
    "traffic_junction": Entry(
        target="envs.grid.traffic_junction:TrafficJunction",
        summary="cars that hardly see each other meet at crossings; difficulty=easy|medium|hard setting=ic3net|magic",
        agents="at most 5, 10, 20 at once by difficulty; they come and go",
        optimum="success 99.7%, 100%, 100% by difficulty at least, by the scripted policy; gas alone 32%, 4%, 7%",
        source="Singh et al. 2019, arXiv:1812.09755; Niu et al. 2021, AAMAS",
        scripted="envs.grid.traffic_junction.scripted:traffic_yield",
        spaces="obs 17, action 2 choices",
    ),
    "two_step": Entry(
        target="envs.matrix.games:TwoStep",
        summary="the first agent chooses which matrix game both play; a sum of values cannot tell which is better",
        agents="2",
        optimum="8 an episode",
        source="Rashid et al. 2018, arXiv:1803.11485, section 5",
        spaces="obs 3, action 2 choices",
    ),
}

SCRIPTED = {
    "mpe2.simple_adversary_v3": "envs.particle.scripted:adversary_cover",
    "mpe2.simple_reference_v3": "envs.particle.scripted:reference_words",
    "mpe2.simple_speaker_listener_v4": "envs.particle.scripted:speaker_listener_words",
    "mpe2.simple_spread_v3": "envs.particle.scripted:spread_assignment",
    "mpe2.simple_tag_v3": "envs.particle.scripted:tag_chase",
}


def resolve(name: str) -> Entry:
    """The native environment of this name.

    Raises:
        ValueError: If there is none; the message names the closest.
    """
    if name not in ENVIRONMENTS:
        also = "; or an import path such as mpe2.simple_spread_v3"
        raise ValueError(unknown("environment", name, ENVIRONMENTS) + also)
    return ENVIRONMENTS[name]


def scripted(name: str) -> str | None:
    """Where the hand-written policy of a native or third-party environment stands, ``module:function``, or None."""
    return ENVIRONMENTS[name].scripted if name in ENVIRONMENTS else SCRIPTED.get(name)


def load(target: str) -> Any:
    """Import what ``module:Name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
