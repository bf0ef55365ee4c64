"""The PettingZoo door: copies of a third-party environment in numpy arrays, in this process or in workers; no torch."""
