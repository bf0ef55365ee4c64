"""Environment steps per second of JaxMARL's MPE_simple_spread_v3 under random play, compiled for the CPU.

What is measured: 25 steps of all copies in one compiled loop, with a fresh random action for every agent, JaxMARL's own
automatic restarts, and observations and rewards that the loop has to produce (it carries them, so that the compiler
cannot leave them out), by wall-clock; compilation is not counted. One environment step is one step of one copy. The
process is tied to as many cores as it has threads, and XLA told to use no more.

Environment: Python 3.11, in a virtual environment of its own::

    pip install jax==0.10.2 flax==0.12.8 jaxmarl==0.2.0

Usage: ``python benchmarks/peers/jaxmarl_spread.py --agents 64 --copies 128`` prints one JSON line.
"""

import argparse
import json
import os
import statistics
import time
from importlib.metadata import version

EPISODE_STEPS = 25


def main() -> None:
    """Parse the command line, compile, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--copies", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a window")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    if args.threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax
    from jaxmarl import make

    env = make("MPE_simple_spread_v3", num_agents=args.agents, num_landmarks=args.agents)

    def sample(key):
        choices = jax.random.randint(key, (args.agents,), 0, 5)
        return {agent: choices[i] for i, agent in enumerate(env.agents)}

    def step(carry, _):
        key, state, _, _ = carry
        key, drawing, stepping = jax.random.split(key, 3)
        actions = jax.vmap(sample)(jax.random.split(drawing, args.copies))
        stepped = jax.vmap(env.step)(jax.random.split(stepping, args.copies), state, actions)
        obs, state, reward = stepped[:3]
        return (key, state, obs, reward), None

    @jax.jit
    def episode(carry):
        return jax.lax.scan(step, carry, None, EPISODE_STEPS)[0]

    key = jax.random.PRNGKey(0)
    obs, state = jax.vmap(env.reset)(jax.random.split(key, args.copies))
    zero = {agent: jax.numpy.zeros(args.copies) for agent in env.agents}
    carry = jax.block_until_ready(episode((key, state, obs, zero)))
    wide = {x.shape for x in carry[2].values()}
    if wide != {(args.copies, 6 * args.agents)}:
        raise RuntimeError(f"expected full observations of width {6 * args.agents}, got {wide}")
    rates = []
    for _ in range(args.windows):
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < args.seconds:
            carry = jax.block_until_ready(episode(carry))
            steps += EPISODE_STEPS
        rates.append(steps * args.copies / (time.perf_counter() - began))
    result = {"framework": "jaxmarl", "env_steps_per_second": statistics.median(rates), "copies": args.copies}
    print(json.dumps({**result, "versions": {name: version(name) for name in ("jaxmarl", "jax", "flax")}}))


if __name__ == "__main__":
    main()
