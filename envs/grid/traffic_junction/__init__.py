"""Traffic junction: cars that arrive, cross without seeing each other, and leave."""

from envs.grid.traffic_junction.task import TrafficJunction, TrafficState

__all__ = ["TrafficJunction", "TrafficState"]
