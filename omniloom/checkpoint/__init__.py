"""Room 5: save and load, strictly, without pickle."""

from omniloom.checkpoint.adopt import adopt
from omniloom.checkpoint.initial import begin_with, initial_digests
from omniloom.checkpoint.run import load_model, read_manifest, save_model, seal

__all__ = ["adopt", "begin_with", "initial_digests", "load_model", "read_manifest", "save_model", "seal"]
