"""Room 7: stages, the loop, exact resume."""

from omniloom.train.run import open_sources, train

__all__ = ["open_sources", "train"]
