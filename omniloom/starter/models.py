"""The table of packaged models: which asset, how it becomes an ordinary folder, and what that folder is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omniloom.errors import MissingAssetError, did_you_mean
from omniloom.starter.assets import ASSETS
from omniloom.starter.cache import Progress, copied, home, made_folder, silent
from omniloom.starter.packages import absent_reason, fetch

__all__ = ["MODELS", "PackagedModel", "model_absent_reason", "resolve_model"]


@dataclass(frozen=True)
class PackagedModel:
    """One model: `convert(asset folder, empty folder)` writes it; `version` rises whenever that writes other files.

    `modules` are the Python packages that conversion or use takes beyond those every installation has.
    """

    name: str
    asset: str
    version: int
    convert: Callable[[Path, Path], object]
    size_mb: float
    what: str
    modules: tuple[str, ...] = ()


def _smollm2(source: Path, out: Path) -> None:
    from omniloom.backbone.gguf import convert_gguf

    convert_gguf(source / "SmolLM2-135M-Instruct.Q4_1.gguf", out)


def _whisper(source: Path, out: Path) -> None:
    from omniloom.starter.ctranslate2 import convert_whisper

    convert_whisper(source, out)


def _dinov2(source: Path, out: Path) -> None:
    from omniloom.starter.onnx_weights import convert_dinov2

    convert_dinov2(source / "vit_s_focus.onnx", out)


def _efficientnet(source: Path, out: Path) -> None:
    """A pickled state dict, read as weights only, to `model.safetensors`, checked against the module it is for."""
    import torch
    from safetensors.torch import save_file

    from omniloom.encoders.efficientnet import EfficientNetLite0

    state = torch.load(source / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True)
    EfficientNetLite0().load_state_dict(state, strict=True)
    save_file({name: value.contiguous() for name, value in state.items()}, out / "model.safetensors")


def _joe(source: Path, out: Path) -> None:
    for name in ("en_US-joe-medium.onnx", "en_US-joe-medium.onnx.json", "MODEL_CARD"):
        copied(source / name, out / name)


MODELS: dict[str, PackagedModel] = {
    row.name: row
    for row in (
        PackagedModel(
            "smollm2-135m", "smollm2-135m-gguf", 1, _smollm2, 272.6,
            "language model, LlamaForCausalLM bf16: AutoModelForCausalLM and AutoTokenizer", ("gguf",),
        ),
        PackagedModel(
            "whisper-tiny-en", "whisper-tiny-en-ct2", 1, _whisper, 77.7,
            "speech to text, English, fp16: WhisperForConditionalGeneration and AutoTokenizer",
        ),
        PackagedModel(
            "dinov2-small", "dinov2-small-onnx", 1, _dinov2, 88.2,
            "image encoder, 14-pixel patches, fine-tuned on saliency: Dinov2Model", ("onnx",),
        ),
        PackagedModel(
            "efficientnet-lite0", "efficientnet-lite0-pth", 1, _efficientnet, 18.8,
            "image encoder, ImageNet: model.safetensors of omniloom.encoders.efficientnet.EfficientNetLite0",
        ),
        PackagedModel(
            "joe", "joe-piper", 1, _joe, 63.2,
            "voice, US English: en_US-joe-medium.onnx of omniloom.starter.piper.Voice", ("onnxruntime",),
        ),
    )
}  # fmt: skip


def _row(name: str) -> PackagedModel:
    if name not in MODELS:
        raise MissingAssetError(f"unknown starter model {name!r}.{did_you_mean(name, MODELS)}")
    return MODELS[name]


def model_absent_reason(name: str) -> str:
    """Why model `name` cannot be had on this system; empty if it can, or is in the cache already."""
    row = _row(name)
    if (home() / "models" / name).is_dir():
        return ""
    missing = [module for module in row.modules if find_spec(module) is None]
    return f"the Python package {missing[0]!r} is not installed" if missing else absent_reason(row.asset)


def resolve_model(name: str, *, progress: Progress = silent) -> Path:
    """The folder of model `name`, fetched and converted where it is not there yet.

    Raises:
        MissingAssetError: there is no such model, or its package cannot be had.
    """
    row = _row(name)
    asset = ASSETS[row.asset]
    stamp = {"model": name, "version": str(row.version), "package": asset.package, "licence": asset.licence}
    folder = home() / "models" / name

    def make(out: Path) -> None:
        source = fetch(row.asset, progress=progress)
        progress(name, "converting")
        row.convert(source, out)

    return made_folder(folder, stamp, make)
