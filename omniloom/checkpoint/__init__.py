"""Room 5: save and load, strictly, without pickle."""

from omniloom.checkpoint.run import load_model, read_manifest, save_model, seal

__all__ = ["load_model", "read_manifest", "save_model", "seal"]
