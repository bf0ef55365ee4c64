"""Experience kept for later: a ring of rollouts, and how transitions are drawn from it."""
