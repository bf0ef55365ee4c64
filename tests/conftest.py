"""Settings of the whole suite: one torch thread, and few, fixed hypothesis examples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("concert", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("concert")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
