"""The table of parts: which name in a run file is which class.

A part is a class. Its signature is its schema: parameters before the star are wired by the model (widths,
embedding tables), parameters after the star are the user's choice; each has a default, or is required, and is
stored under the same name on the instance. So a part can be built from a spec and its spec read back:

    build("projectors", {"type": "mlp", "layers": 3}, 64, 576)      ->  the module
    spec_of("projectors", module)                                   ->  {"type": "mlp", "layers": 3, ...}

Names are found in three places: the table below, the entry-point group `omniloom.ROOM` of installed packages
(the same `module:Class` syntax), and `path/to/file.py:Class` relative to the run file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from omniloom.errors import ConfigError, MissingAssetError, did_you_mean

__all__ = [
    "BUILT_IN",
    "build",
    "find",
    "mistyped",
    "names",
    "part_file",
    "resolve_asset",
    "schema",
    "spec_of",
    "split_spec",
    "untrained",
]

BUILT_IN: dict[str, dict[str, str]] = {
    "processors": {
        "image": "omniloom.encoders.processors:ImageProcessor",
        "log_mel": "omniloom.encoders.processors:LogMelProcessor",
        "series": "omniloom.encoders.processors:SeriesProcessor",
        "points": "omniloom.encoders.processors:PointsProcessor",
        "video": "omniloom.encoders.processors:VideoProcessor",
        "hub": "omniloom.encoders.hub_processor:HubProcessor",
        "filter_bank": "omniloom.encoders.filter_bank_processor:FilterBankProcessor",
        "vector": "omniloom.encoders.vector:VectorProcessor",
        "together": "omniloom.encoders.together:TogetherProcessor",
        "features": "omniloom.encoders.features:FeaturesProcessor",
        "native_image": "omniloom.encoders.native_image:NativeImageProcessor",
        "tiles": "omniloom.encoders.tiles:TilesProcessor",
        "map": "omniloom.encoders.map_processor:MapProcessor",
        "sound_clips": "omniloom.encoders.sound_clips:SoundClipsProcessor",
        "sound_channels": "omniloom.encoders.sound_clips:SoundChannelsProcessor",
        "objects": "omniloom.encoders.object_processor:ObjectsProcessor",
        "hub_video": "omniloom.encoders.hub_frames:HubVideoProcessor",
    },
    "encoders": {
        "patch_vit": "omniloom.encoders.patch_vit:PatchViT",
        "log_mel_conv": "omniloom.encoders.log_mel_conv:LogMelConv",
        "series_conv": "omniloom.encoders.series_conv:SeriesConv",
        "point_net": "omniloom.encoders.point_net:PointNet",
        "object_points": "omniloom.encoders.object_points:ObjectPoints",
        "vector": "omniloom.encoders.vector:VectorEncoder",
        "stem": "omniloom.encoders.stems:Stem",
        "series_stem": "omniloom.encoders.stems:SeriesStem",
        "together": "omniloom.encoders.together:TogetherEncoder",
        "identity": "omniloom.encoders.features:Identity",
        "efficientnet_lite0": "omniloom.encoders.efficientnet_part:EfficientNetEncoder",
        "hub_vision": "omniloom.encoders.hub_vision:HubVision",
        "native_vision": "omniloom.encoders.native_vision:NativeVision",
        "hub_video": "omniloom.encoders.hub_video:HubVideo",
        "joint": "omniloom.encoders.joint:JointEncoder",
        "language_bind": "omniloom.encoders.language_bind:LanguageBind",
        "hub_speech": "omniloom.encoders.hub_speech:HubSpeech",
        "beats": "omniloom.encoders.beats:Beats",
        "hub_audio": "omniloom.encoders.hub_audio:HubAudio",
        "phi_audio": "omniloom.encoders.phi_audio:PhiAudio",
        "qwen_audio": "omniloom.encoders.qwen_audio:QwenAudio",
    },
    "codecs": {"image_fsq": "omniloom.codecs.image_fsq:ImageFSQ"},
    "layouts": {"flattened": "omniloom.codecs.layouts:Flattened"},
    "projectors": {
        "linear": "omniloom.projectors.dense:Linear",
        "mlp": "omniloom.projectors.dense:MLP",
        "residual": "omniloom.projectors.residual:Residual",
        "vocabulary": "omniloom.projectors.vocabulary:VocabularyAttention",
        "per_frame": "omniloom.projectors.per_frame:PerFrame",
        "window_qformer": "omniloom.projectors.window_qformer:WindowQFormer",
        "cif": "omniloom.projectors.cif:CIF",
        "hub_qformer": "omniloom.projectors.hub_qformer:HubQFormer",
        "soft_moe": "omniloom.projectors.soft_moe:SoftMoE",
        "perceiver": "omniloom.projectors.perceiver:Perceiver",
        "qformer": "omniloom.projectors.qformer:QFormer",
        "pool": "omniloom.projectors.pooling:Pool",
        "average": "omniloom.projectors.pooling:Average",
        "stack": "omniloom.projectors.pooling:Stack",
        "merge": "omniloom.projectors.merge:Merge",
        "grid_pool": "omniloom.projectors.grid_pool:GridPool",
        "score_pool": "omniloom.projectors.score_pool:ScorePool",
        "c_abstractor": "omniloom.projectors.c_abstractor:CAbstractor",
        "stc": "omniloom.projectors.stc:STC",
        "groups": "omniloom.projectors.groups:Groups",
        "objects": "omniloom.projectors.objects:Objects",
        "prototypes": "omniloom.projectors.prototypes:Prototypes",
        "rotary_time": "omniloom.projectors.rotary_time:RotaryTime",
        "positions": "omniloom.projectors.positions:Positions",
        "row_mix": "omniloom.projectors.row_mix:RowMix",
        "layer_mix": "omniloom.projectors.layer_mix:LayerMix",
        "trunk": "omniloom.projectors.trunk:Trunk",
        "boundaries": "omniloom.projectors.boundaries:Boundaries",
        "mosaic": "omniloom.projectors.mosaic:Mosaic",
        "conv": "omniloom.projectors.conv:Conv",
        "conv_gmlp": "omniloom.projectors.conv_gmlp:ConvGMLP",
    },
    "interaction": {
        "lora": "omniloom.interaction.lora:LoRA",
        "lora_experts": "omniloom.interaction.lora_experts:LoRAExperts",
        "bias": "omniloom.interaction.bias:Bias",
        "prompt": "omniloom.interaction.prompt:Prompt",
        "gated_attention": "omniloom.interaction.gated_attention:GatedAttention",
        "cross_attention": "omniloom.interaction.cross_attention:CrossAttention",
        "deepstack": "omniloom.interaction.deepstack:DeepStack",
        "token_injection": "omniloom.interaction.token_injection:TokenInjection",
        "moe_ffn": "omniloom.interaction.moe_ffn:MoEFFN",
        "token_reduction": "omniloom.interaction.token_reduction:TokenReduction",
    },
    "positions": {
        "sequential": "omniloom.planner.positions:Sequential",
        "mrope": "omniloom.planner.positions:MRoPE",
        "tmrope": "omniloom.planner.positions:TMRoPE",
    },
    "interleavings": {
        "chunks": "omniloom.planner.interleave:Chunks",
        "even": "omniloom.planner.interleave:Even",
        "in_order": "omniloom.planner.interleave:InOrder",
    },
    "fusers": {
        "sum": "omniloom.projectors.fusers.summing:Sum",
        "weighted": "omniloom.projectors.fusers.summing:Weighted",
        "gated": "omniloom.projectors.fusers.gated:Gated",
        "channels": "omniloom.projectors.fusers.channels:Channels",
        "clue": "omniloom.projectors.fusers.clue:Clue",
        "cross": "omniloom.projectors.fusers.cross:Cross",
        "align": "omniloom.projectors.fusers.align:Align",
    },
    "backbones": {
        "causal_lm": "omniloom.backbone.causal_lm:CausalLM",
        "seq2seq_lm": "omniloom.backbone.seq2seq_lm:Seq2SeqLM",
    },
    "generators": {"voice": "omniloom.generators.voice:VoiceGenerator"},
    "voices": {"joe": "omniloom.starter:voice"},
    "sources": {
        "jsonl": "omniloom.data.sources:JsonlSource",
        "csv": "omniloom.data.sources:CsvSource",
        "folder": "omniloom.data.sources:FolderSource",
    },
    "assets": {"starter": "omniloom.starter:resolve"},
    "datasets": {"starter": "omniloom.starter:dataset"},
    "licences": {"starter": "omniloom.starter:terms"},
    "modalities": {},
    "published": {
        "audioflamingo3": "omniloom.published.audio_flamingo:audio_flamingo3",
        "blip-2": "omniloom.published.blip:blip",
        "instructblip": "omniloom.published.blip:blip",
        "llava": "omniloom.published.llava:llava",
        "llava_next": "omniloom.published.llava:llava_next",
        "llava_onevision": "omniloom.published.llava:llava_onevision",
        "qwen2_5_omni_thinker": "omniloom.published.qwen_omni:qwen2_5_omni",
        "qwen2_5_vl": "omniloom.published.qwen_vl:qwen2_5_vl",
        "qwen2_audio": "omniloom.published.qwen_audio:qwen2_audio",
        "qwen2_vl": "omniloom.published.qwen_vl:qwen2_vl",
    },
}


def names(room: str) -> dict[str, str]:
    """Every part name of a room with its `module:Class` target, built-in and installed."""
    if room not in BUILT_IN:
        raise ConfigError(f"there is no room {room!r} in the part table.{did_you_mean(room, BUILT_IN)}")
    installed = {point.name: point.value for point in entry_points(group=f"omniloom.{room}")}
    return dict(sorted({**installed, **BUILT_IN[room]}.items()))


def find(room: str, name: str, *, base: Path | None = None) -> Any:
    """The class behind a part's name or `file.py:Class`; `base` is the folder a relative file starts from.

    Raises:
        ConfigError: unknown name, missing file, or a file without that class.
    """
    if ".py:" in name:
        file_name, _, attribute = name.rpartition(":")
        return _attribute(part_file(file_name, base=base), attribute, name)
    known = names(room)
    if name not in known:
        singular = room.rstrip("s")
        raise ConfigError(f"unknown {singular} {name!r}.{did_you_mean(name, known)}")
    module_name, _, attribute = known[name].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise MissingAssetError(
            f"part {name!r} of {room} needs the module {error.name!r}, which is not installed. "
            "Install it, or take another part."
        ) from error
    return _attribute(module, attribute, name)


def part_file(file_name: str, *, base: Path | None = None) -> ModuleType:
    """Import a user's part file once; two files of the same name in different folders stay apart."""
    path = Path(file_name)
    if not path.is_absolute():
        path = (base or Path.cwd()) / path
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(
            f"cannot find the part file {file_name!r}: looked at {path}. Paths start at the run file's folder."
        )
    module_name = f"omniloom_part_{hashlib.sha256(path.read_bytes() + str(path).encode()).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"cannot import the part file {file_name!r}: it is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ConfigError(f"the part file {file_name!r} fails on import: {type(error).__name__}: {error}") from error
    return module


def _attribute(module: ModuleType, attribute: str, name: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise ConfigError(f"{name!r} names no class of its file.{did_you_mean(attribute, public)}") from None


def split_spec(spec: str | Mapping[str, Any], *, where: str) -> tuple[str, dict[str, Any]]:
    """`"mlp"` or `{"type": "mlp", "layers": 3}` -> (name, options).

    Raises:
        ConfigError: no `type`, or neither a name nor a mapping; `where` names the place in the message.
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and isinstance(spec.get("type"), str):
        return spec["type"], {key: value for key, value in spec.items() if key != "type"}
    raise ConfigError(f"{where} must be a part's name or a mapping with `type:`, got {spec!r}.")


def schema(part: Any) -> dict[str, inspect.Parameter]:
    """The parameters after the star: what a user may set, with annotation and default."""
    parameters = inspect.signature(part).parameters
    return {name: value for name, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}


def mistyped(part: Any, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong) for every value that is not of its annotation; an option without one takes anything."""
    for option, parameter in schema(part).items():
        if option not in options or options[option] is parameter.default:
            continue
        value, adapter, annotation = options[option], _adapter(part, option), parameter.annotation
        if adapter is not None and not _is_of(adapter, value):
            expected = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
            yield option, f"option {option!r} is {value!r}, {_kind_of(value)}; expected {expected}."


def _is_of(adapter: TypeAdapter[Any], value: Any) -> bool:
    """By JSON's rules, which a run file follows: a list may be a tuple, a text a path or the number of a key."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = None
    try:
        adapter.validate_python(value) if text is None else adapter.validate_json(text)
    except ValidationError:
        return False
    return True


def _kind_of(value: Any) -> str:
    kinds = {str: "a text", bool: "a truth value", int: "a whole number", float: "a number", type(None): "nothing"}
    return kinds.get(type(value), f"a {type(value).__name__}")


@cache
def _adapter(part: Any, option: str) -> TypeAdapter[Any] | None:
    """What holds values to the option's annotation, strictly: a text is no number and no list."""
    try:
        hint = get_type_hints(part.__init__ if inspect.isclass(part) else part)[option]
        return TypeAdapter(hint, config=ConfigDict(strict=True))
    except Exception:  # an annotation of a part file may be anything; one that cannot be read holds nothing
        return None


def build(room: str, spec: str | Mapping[str, Any], *wired: Any, base: Path | None = None) -> Any:
    """Build a part from its spec; `wired` are the model's own arguments, in the signature's order.

    Raises:
        ConfigError: unknown part or option, a required option missing, or a value the part refuses.
    """
    name, options = split_spec(spec, where=f"a part of {room}")
    part = find(room, name, base=base)
    known = schema(part)
    for option in options:
        if option not in known:
            raise ConfigError(f"{room.rstrip('s')} {name!r} has no option {option!r}.{did_you_mean(option, known)}")
    required = [key for key, value in known.items() if value.default is inspect.Parameter.empty and key not in options]
    if required:
        raise ConfigError(f"{room.rstrip('s')} {name!r} needs the option {required[0]!r}, which has no default.")
    for _, message in mistyped(part, options):
        raise ConfigError(f"{room.rstrip('s')} {name!r}: {message}")
    try:
        return part(*wired, **options)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "negative dimension" not in str(error):
            raise  # of memory, or of a device without numbers: no option's fault
        raise ConfigError(f"{room.rstrip('s')} {name!r} refuses its options {options}: {error}") from error


def spec_of(room: str, part: Any, *, name: str | None = None) -> dict[str, Any]:
    """The spec that builds an equal part: every option read back from the attribute of its own name."""
    if name is None:
        target = f"{type(part).__module__}:{type(part).__qualname__}"
        by_target = {value: key for key, value in names(room).items()}
        if target not in by_target:
            raise ConfigError(f"{type(part).__name__} is not in the table of {room}; pass `name`.")
        name = by_target[target]
    return {"type": name, **{key: getattr(part, key) for key in schema(type(part))}}


def untrained(room: str, spec: str | Mapping[str, Any], *, base: Path | None = None) -> str | Mapping[str, Any]:
    """The spec of the same part with random weights, where it would load pretrained ones."""
    name, options = split_spec(spec, where=f"a part of {room}")
    has_weights = "weights" in schema(find(room, name, base=base))
    return {"type": name, **options, "weights": False} if has_weights else spec


def resolve_asset(reference: str, *, table: str = "assets") -> str:
    """`scheme:name` -> a local folder through the table of `assets` (or `datasets`); anything else unchanged.

    A hub id (`org/name`) and a path have no scheme of that table and pass through.
    """
    scheme, colon, rest = reference.partition(":")
    if not colon or scheme not in names(table):
        return reference
    return str(find(table, scheme)(rest))
