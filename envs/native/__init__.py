"""Native environments: tasks as pure functions over tensors, and what makes worlds of them."""

from envs.native.task import NativeEnv, Task

__all__ = ["NativeEnv", "Task"]
