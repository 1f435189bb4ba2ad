"""Room 5: multimodal models that others have published, told in our parts."""

from omniloom.published.source import Part, Published, Row, Source, published_model
from omniloom.published.tensors import Weights

__all__ = ["Part", "Published", "Row", "Source", "Weights", "published_model"]
