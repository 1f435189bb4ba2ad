"""Room 3: what reads a medium. Processors make raw tensors of payloads, encoders make rows of raw tensors."""

from omniloom.encoders.base import Encoder, Processor

__all__ = ["Encoder", "Processor"]
