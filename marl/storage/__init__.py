"""State on disk: files that are never half written, checkpoints that are never half read."""
