"""A stock language model of transformers, by hub id or folder: found, loaded, embedded; the options that all have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import cached_file

from omniloom.backbone.gguf import convert_gguf
from omniloom.backbone.hooking import HookableLayers
from omniloom.backbone.inside_whole import is_whole, open_inside
from omniloom.errors import ConfigError, MissingAssetError
from omniloom.registry import resolve_asset

__all__ = ["DTYPES", "StockModel", "fast_dtype", "load_tokenizer"]

TEMPLATES = ("chat", "plain", "bare")
_WITHOUT_ERRORS = {
    "_raise_exceptions_for_gated_repo": False,
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def fast_dtype() -> str:
    """bfloat16 where the processor multiplies it (AVX512-BF16, AMX), else float32: emulated, it is far slower."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bfloat16" if found.get("avx512_bf16") or found.get("amx_bf16") else "float32"


class StockModel(HookableLayers):
    """A backbone around `lm`, a model of one of transformers' automatic classes (`auto`).

    `id`: hub id, folder, `scheme:name` of the assets table, or a `.gguf` file, which is converted once beside itself;
    of a whole multimodal model (LLaVA, Qwen2.5-VL ...) the language model inside is taken. `revision`: of a hub id; pin
    it for results that can be rerun. `dtype`: of its weights; "auto" takes `fast_dtype`. `template`: "chat" takes the
    tokenizer's chat template, "plain" writes roles as text, "bare" writes nothing around what is said. `system`: None
    keeps the template's own opening, "" opens with nothing, other text is the system prompt of every conversation
    without one. `weights` False builds the true class with random weights from its config alone.
    `gradient_checkpointing` trades time for memory.
    """

    def __init__(
        self,
        auto: Any,
        *,
        id: str,
        revision: str | None,
        dtype: str,
        template: str,
        system: str | None,
        weights: bool,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        dtype = fast_dtype() if dtype == "auto" else dtype
        if dtype not in DTYPES:
            raise ConfigError(f"backbone dtype is {dtype!r}; expected auto or one of {', '.join(DTYPES)}.")
        if template not in TEMPLATES:
            raise ConfigError(f"backbone template is {template!r}; expected 'chat', 'plain' or 'bare'.")
        self.id, self.revision, self.dtype, self.template, self.system = id, revision, dtype, template, system
        self.weights, self.gradient_checkpointing = weights, gradient_checkpointing
        self.lm = self._load(auto)
        if gradient_checkpointing:
            self.lm.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": self.checkpoint_contexts})
            _still_dropout(self.lm)
        # OPT-350m and its like embed, and speak, at another width than their layers have.
        self.width = int(self.lm.get_input_embeddings().weight.shape[1])
        self.vocab_size = int(self.lm.get_input_embeddings().weight.shape[0])
        self.stop_ids = _stop_ids(self.lm.generation_config)
        self.lm.eval()

    def _load(self, auto: Any) -> Any:
        folder, dtype = locate(self.id), DTYPES[self.dtype]
        try:
            config = AutoConfig.from_pretrained(folder, revision=self.revision, trust_remote_code=False)
            if is_whole(config):
                self.begins = True
                return open_inside(folder, config, revision=self.revision, dtype=dtype, weights=self.weights)
            if self.weights:
                return auto.from_pretrained(
                    folder,
                    revision=self.revision,
                    dtype=dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                )
            return auto.from_config(config, dtype=dtype, trust_remote_code=False)
        except (OSError, ValueError, ImportError) as error:
            raise MissingAssetError(
                f"cannot load the language model {self.id!r}: {str(error).splitlines()[0]} "
                "Give a hub id that is cached or reachable, or a folder with config.json and safetensors; quantised "
                "weights need the package that their format is from."
            ) from error

    @property
    def inner_width(self) -> int:
        """The width of its layers."""
        return int(self.lm.config.get_text_config().hidden_size)

    def embed(self, ids: Tensor) -> Tensor:
        embeds: Tensor = self.lm.get_input_embeddings()(ids)
        return embeds

    def embedding_table(self) -> Tensor:
        table: Tensor = self.lm.get_input_embeddings().weight
        return table

    def head_table(self) -> Tensor:
        table: Tensor = self.lm.get_output_embeddings().weight
        return table

    def _additive(self, mask: Tensor | None) -> Tensor | None:
        """Eager attention adds its mask to the scores; a bool one would be added as 0 and 1."""
        if mask is None:
            return None
        return torch.zeros_like(mask, dtype=self.lm.dtype).masked_fill(~mask, torch.finfo(self.lm.dtype).min)

    def _checkpoint_layers(self, is_on: bool) -> None:
        """transformers checkpoints a layer in training mode only; here that mode is set for the layer alone, so that
        dropout inside it stays off."""
        if self.gradient_checkpointing:
            for layer in self.lm.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.training = is_on


def locate(reference: str) -> str:
    """The folder or hub id that transformers can open; a GGUF file is converted once into a folder beside it.

    Raises:
        MissingAssetError: a path to nothing, which transformers would take for a hub id.
    """
    path = resolve_asset(reference)
    if Path(path).is_absolute() and not Path(path).exists():
        raise MissingAssetError(f"there is no file or folder {path}.")
    if path.endswith(".gguf"):
        source = Path(path)
        folder = source.with_suffix(".transformers")
        if not (folder / "config.json").is_file():
            convert_gguf(source, folder)
        return str(folder)
    return path


def load_tokenizer(reference: str, *, revision: str | None = None) -> Any:
    """The tokenizer that belongs to a language model; a multimodal model's chat template is that of its processor.

    Older folders keep that template in a file of its own, beside a tokenizer whose template knows only words.

    Raises:
        MissingAssetError: there is none at that id or folder.
    """
    folder = locate(reference)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MissingAssetError(f"cannot load a tokenizer of {reference!r}: {str(error).splitlines()[0]}") from error
    for name in ("chat_template.jinja", "chat_template.json", "processor_config.json"):
        file = cached_file(folder, name, revision=revision or "main", **_WITHOUT_ERRORS)
        if file is None:
            continue
        if name.endswith(".jinja"):
            break  # the newer file is the tokenizer's and the processor's alike, and was read
        if template := json.loads(Path(file).read_text()).get("chat_template"):
            tokenizer.chat_template = template
            break
    return tokenizer


def _still_dropout(lm: Any) -> None:
    """Some layers (OPT's) drop by their own mode and not by a child's; that mode is on while they are checkpointed."""
    for layer in lm.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for name in [name for name, value in vars(layer).items() if "dropout" in name and type(value) is float]:
                setattr(layer, name, 0.0)


def _stop_ids(config: GenerationConfig | None) -> frozenset[int]:
    eos = getattr(config, "eos_token_id", None)
    if eos is None:
        return frozenset()
    return frozenset([eos] if isinstance(eos, int) else eos)
