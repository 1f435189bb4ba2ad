"""Audio Flamingo 3: sounds of up to 30 s through an MLP of two layers; its tower and MLP are the ears of OmniVinci.

Source: Audio Flamingo 3 (arXiv:2507.08128), OmniVinci (arXiv:2510.15870).
"""

from __future__ import annotations

from omniloom.errors import ConfigError
from omniloom.published.source import Part, Published, Row, Source

__all__ = ["audio_flamingo3"]


def audio_flamingo3(source: Source) -> Published:
    """Audio Flamingo 3: one row per 40 ms.

    A sound of over 30 s is refused, where the published processor reads it in several windows.

    Raises:
        ConfigError: a projector without biases.
    """
    config = source.config
    if not config.projector_bias:
        raise ConfigError(f"the projector of {source.id!r} has no biases, which is not known here.")
    tensors = {f"maps.{index}": f"multi_modal_projector.linear_{index + 1}" for index in range(2)}
    spec = {"type": "mlp", "layers": 2, "norm": False, "activation": config.projector_hidden_act}
    return Published(
        [
            Row(
                "audio",
                "audio",
                source.markers("audio", config.audio_token_id),
                source.named("hub", lengths=True),
                Part(source.named("qwen_audio")),
                [Part(spec, tensors)],
            )
        ]
    )
