"""Text-based generation of speech: what the model says in text, a voice says aloud.

Source: text-based generation with a text-to-speech tool, as in VITA (arXiv:2408.05211).
"""

from __future__ import annotations

from typing import Any

from omniloom.errors import ConfigError
from omniloom.media.payloads import Audio
from omniloom.registry import find

__all__ = ["VoiceGenerator"]


class VoiceGenerator:
    """Text -> audio. `voice`: a name of the table of voices; `limit_chars`: longer text is refused."""

    payload_kind = "audio"

    def __init__(self, *, voice: str = "joe", limit_chars: int = 2000) -> None:
        self.voice, self.limit_chars = voice, limit_chars
        self._speaker: Any = None

    def render(self, text: str) -> Audio:
        """The spoken text, (1, S) samples at the voice's own rate.

        Raises:
            ConfigError: nothing to say, or more than the limit.
        """
        if not text.strip() or len(text) > self.limit_chars:
            raise ConfigError(f"a voice speaks 1 to {self.limit_chars} characters, got {len(text.strip())}.")
        if self._speaker is None:
            self._speaker = find("voices", self.voice)()
        samples, rate_hz = self._speaker.say(text)
        return Audio(samples[None], rate_hz)
