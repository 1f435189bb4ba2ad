"""Pretrained weights out of ONNX graphs: DINOv2-small to a transformers folder.

An exporter keeps the names of most weights but folds the transposed matrices of linear layers into nameless
constants; the name of the MatMul node that uses one says which layer it belongs to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omniloom.errors import CheckpointError, MissingAssetError

__all__ = ["convert_dinov2", "read_initializers"]

_PREFIX = "backbone."
_HEAD_DIM = 64


def read_initializers(onnx_path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(constant name -> array, MatMul node name -> name of the constant it multiplies by) of an ONNX graph."""
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise MissingAssetError(
            "reading weights out of an ONNX file needs the package `onnx`. Install it: pip install onnx."
        ) from error
    graph = onnx.load(str(onnx_path)).graph
    constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    products = {
        node.name: name for node in graph.node if node.op_type == "MatMul" for name in node.input if name in constants
    }
    return constants, products


def convert_dinov2(onnx_path: Path, out_folder: Path) -> Path:
    """Write the DINOv2 backbone inside a segmentation ONNX file into `out_folder`, for `Dinov2Model.from_pretrained`.

    Raises:
        CheckpointError: weights are missing or left over.
    """
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model

    constants, products = read_initializers(onnx_path)
    state = _state(constants, products)
    hidden_size, _, patch_size, _ = state["embeddings.patch_embeddings.projection.weight"].shape
    positions = state["embeddings.position_embeddings"].shape[1] - 1
    layers = len({name.split(".")[2] for name in state if name.startswith("encoder.layer.")})
    config = Dinov2Config(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // _HEAD_DIM,
        mlp_ratio=state["encoder.layer.0.mlp.fc1.weight"].shape[0] // hidden_size,
        patch_size=patch_size,
        image_size=round(positions**0.5) * patch_size,
        dtype=torch.float32,
    )
    config.architectures = ["Dinov2Model"]
    out_folder.mkdir(parents=True, exist_ok=True)
    save_file(state, out_folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(out_folder)
    (out_folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2) + "\n", encoding="utf-8")
    # Published names differ from those of the class, which renames as it loads: so the check is a real load.
    report: dict[str, Any]
    _, report = Dinov2Model.from_pretrained(out_folder, output_loading_info=True)  # type: ignore[misc]
    wrong = {kind: sorted(names) for kind, names in report.items() if names}
    if wrong:
        raise CheckpointError(f"{onnx_path} does not hold the weights of a Dinov2Model: {wrong}.")
    return out_folder


# As published with DINOv2: shortest side to 256, centre 224 x 224, ImageNet mean and deviation.
_PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def _state(constants: dict[str, np.ndarray], products: dict[str, str]) -> dict[str, Tensor]:
    """The weights under transformers' names; the mask token, which only pre-training reads, is zero."""
    state = {}
    for name, value in constants.items():
        if name.startswith(_PREFIX):
            state[name.removeprefix(_PREFIX)] = torch.from_numpy(value.copy())
    for node, constant in products.items():
        layer = node.strip("/").removesuffix("/MatMul").replace("/", ".")
        if layer.startswith(_PREFIX):
            state[f"{layer.removeprefix(_PREFIX)}.weight"] = torch.from_numpy(constants[constant].T.copy())
    # The class token's position and the patches' are apart, since only the latter are resized.
    width = state["embeddings.cls_token"].shape[-1]
    shaped = [
        value
        for name, value in constants.items()
        if name.startswith("onnx::") and value.ndim == 3 and value.shape[-1] == width
    ]
    if [value.shape[1] == 1 for value in sorted(shaped, key=lambda v: v.shape[1])] != [True, False]:
        raise CheckpointError(
            f"expected the positions of the class token and of the patches, found shapes {[v.shape for v in shaped]}."
        )
    first, patches = sorted(shaped, key=lambda value: value.shape[1])
    state["embeddings.position_embeddings"] = torch.from_numpy(np.concatenate([first, patches], axis=1))
    state["embeddings.mask_token"] = torch.zeros(1, width)
    return state
