"""Room 6: multimodal models that others have published, as runs made of our parts."""

from omniloom.published.adopt import adopt

__all__ = ["adopt"]
