"""The LLaVA family: a picture tower, an MLP of two layers, a language model; later ones see large pictures as tiles.

Source: LLaVA-1.5 (arXiv:2310.03744), LLaVA-NeXT, LLaVA-OneVision (arXiv:2408.03326).
"""

from __future__ import annotations

from typing import Any

from omniloom.errors import ConfigError
from omniloom.published.source import Part, Published, Row, Source

__all__ = ["llava", "llava_next", "llava_onevision"]

_FRAMES = 32  # of a clip, evenly over all of it, as LLaVA-OneVision's processor takes them


def llava(source: Source) -> Published:
    """LLaVA-1.5: pictures of one size, rows of the last layer but one.

    Raises:
        ConfigError: rows of several layers side by side (VipLLaVA), or a projector without biases.
    """
    config = source.config
    markers = source.markers("image", config.image_token_id)
    return Published([Row("image", "image", markers, source.named("hub"), Part(_tower(source)), [_projector(source)])])


def llava_next(source: Source) -> Published:
    """LLaVA-NeXT: the whole picture and tiles of it, put together with a learned end of each line.

    Raises:
        ConfigError: as `llava`.
    """
    config = source.config
    markers = source.markers("image", config.image_token_id)
    newline = Part({"type": "mosaic"}, {"line_end": "image_newline"})
    return Published(
        [
            Row(
                "image",
                "image",
                markers,
                source.named("tiles"),
                Part(_tower(source)),
                [_projector(source), newline],
            )
        ]
    )


def llava_onevision(source: Source) -> Published:
    """LLaVA-OneVision: pictures in tiles, several pictures, clips.

    The row `image` is a picture alone in its conversation; `images` is one of several, each whole; `video` is a clip
    whose frames are pooled.

    Raises:
        ConfigError: as `llava`.
    """
    config = source.config
    name, _, most = config.vision_aspect_ratio.rpartition("_")
    if name != "anyres_max":
        raise ConfigError(f"{source.id!r} has the vision_aspect_ratio {config.vision_aspect_ratio!r}, unknown here.")
    tower = Part(_tower(source), shared="tower")
    projector = _projector(source, shared="projector")
    newline = Part({"type": "mosaic", "max_tiles": int(most)}, {"line_end": "image_newline"}, shared="newline")
    pool = Part({"type": "grid_pool", "stride": 2, "mode": "bilinear"})
    seen = source.markers("image", config.image_token_id)
    whole = source.named("hub", square=True)
    frames = source.named("hub_video", frames=_FRAMES)
    return Published(
        [
            Row("image", "image", seen, source.named("tiles"), tower, [projector, newline]),
            Row("images", "image", seen, whole, tower, [projector, newline]),
            Row(
                "video",
                "video",
                source.markers("video", config.video_token_id),
                frames,
                tower,
                [projector, pool, newline],
            ),
        ]
    )


def _tower(source: Source) -> dict[str, Any]:
    config = source.config
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    if not isinstance(layer, int):
        raise ConfigError(f"{source.id!r} puts rows of the layers {layer} side by side; only one layer is known here.")
    has_class_token = not str(config.vision_config.model_type).startswith("siglip")
    if strategy == "default" and not has_class_token:
        raise ConfigError(f"{source.id!r} drops the first patch of a tower that has no class token; unknown here.")
    tokens = "all" if strategy == "full" and has_class_token else "patches"
    # What LLaVA reads are hidden states, which no norm of the tower has passed.
    return source.named("hub_vision", layer=layer, tokens=tokens, norm=False)


def _projector(source: Source, shared: str | None = None) -> Part:
    config = source.config
    if not config.multimodal_projector_bias:
        raise ConfigError(f"the projector of {source.id!r} has no biases, which is not known here.")
    spec = {"type": "mlp", "layers": 2, "norm": False, "activation": config.projector_hidden_act}
    tensors = {f"maps.{index}": f"multi_modal_projector.linear_{index + 1}" for index in range(2)}
    return Part(spec, tensors, shared)
