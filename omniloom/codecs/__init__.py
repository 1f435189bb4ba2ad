"""Room 3: discrete encoding. Codecs make codes of payloads and payloads of codes; layouts place them into slots."""

from omniloom.codecs.base import Codec, Layout

__all__ = ["Codec", "Layout"]
