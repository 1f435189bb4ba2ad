"""Room 5: compose parts into one model, run it, and decode its answers."""

from omniloom.model.checks import require_read
from omniloom.model.compose import compose
from omniloom.model.decode import Reply, Sampling, generate
from omniloom.model.omni import OmniModel, SlotLosses

__all__ = ["OmniModel", "Reply", "Sampling", "SlotLosses", "compose", "generate", "require_read"]
