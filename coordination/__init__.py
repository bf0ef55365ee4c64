"""Mathematics of many agents: pure functions on batched tensors, for any library's trajectories."""
