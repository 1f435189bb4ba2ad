"""The LLaVA family: a picture tower, an MLP of two layers, a language model.

Source: LLaVA-1.5 (arXiv:2310.03744), LLaVA-NeXT with tiles, LLaVA-OneVision with videos (arXiv:2408.03326).
"""

from __future__ import annotations

from typing import Any

from omniloom.errors import ConfigError
from omniloom.published.source import Part, Published, Row, Source

__all__ = ["llava"]


def llava(source: Source) -> Published:
    """LLaVA-1.5: one size of pictures; rows of the last layer but one.

    Raises:
        ConfigError: rows of several layers side by side (VipLLaVA).
    """
    config = source.config
    return Published(
        [
            Row(
                "image",
                "image",
                source.markers("image", config.image_token_id),
                source.named("hub"),
                Part(_tower(source)),
                [_mlp(config)],
            )
        ]
    )


def _tower(source: Source) -> dict[str, Any]:
    layer = source.config.vision_feature_layer
    if not isinstance(layer, int):
        raise ConfigError(f"{source.id!r} puts rows of the layers {layer} side by side; only one layer is known here.")
    tokens = {"default": "patches", "full": "all"}[source.config.vision_feature_select_strategy]
    return source.named("hub_vision", layer=layer, tokens=tokens)


def _mlp(config: Any, shared: str | None = None) -> Part:
    spec = {"type": "mlp", "layers": 2, "norm": False, "activation": config.projector_hidden_act}
    if not config.multimodal_projector_bias:
        raise ConfigError("a projector without biases is not known here.")
    tensors = {f"maps.{index}": f"multi_modal_projector.linear_{index + 1}" for index in range(2)}
    return Part(spec, tensors, shared)
