from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from coordination import rng


def test_the_same_path_gives_the_same_number_on_every_machine():
    assert rng.derive(0, "env", 1) == 2151221512549778356  # written down once; a change breaks old checkpoints


def test_different_paths_give_different_seeds():
    parts = ["env", "policy", 0, 1, 2, 2**32, 2**32 + 1, 2**63]
    paths = [p for n in range(4) for p in itertools.product(parts, repeat=n)]
    seeds = {rng.derive(root, *path) for root in (0, 1) for path in paths}
    assert len(seeds) == 2 * len(paths)


def test_seeds_fit_in_63_bits_and_use_them():
    seeds = [rng.derive(3, i) for i in range(200)]
    assert all(0 <= s < 2**63 for s in seeds)
    assert max(seeds) > 2**62
    ones = sum(s.bit_count() for s in seeds) / (63 * len(seeds))
    assert abs(ones - 0.5) < 0.02  # 200 * 63 fair bits: standard deviation 0.0045


def test_neighbouring_streams_are_uncorrelated():
    draws = torch.stack([torch.rand(4000, generator=rng.generator(0, "env", i)) for i in range(6)])
    off = torch.corrcoef(draws) - torch.eye(6)
    assert off.abs().max() < 0.07  # 4.4 standard errors


def test_generators_start_at_the_derived_seed():
    made = rng.generator(7, "x")
    again = torch.Generator().manual_seed(rng.derive(7, "x"))
    assert torch.equal(torch.rand(5, generator=made), torch.rand(5, generator=again))


def test_numpy_integers_are_numbers_like_any_other():
    assert rng.derive(0, torch.tensor(3).numpy().item()) == rng.derive(0, 3)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: rng.derive(-1), ValueError, "seed: must not be negative, got -1"),
        (lambda: rng.derive(0, -3), ValueError, r"path: numbers must be in \[0, 2\^64\), got -3"),
        (lambda: rng.derive(0, 0.5), TypeError, "float"),  # type: ignore[arg-type]
    ],
)
def test_bad_paths_are_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_importing_the_file_loads_no_torch():
    code = "import sys; from coordination import rng; rng.derive(0, 'a'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
