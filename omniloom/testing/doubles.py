"""Tiny instances of real classes, for laws and conformance: no downloads, a second on one core.

`tiny_language_model` saves a random transformers Llama and a byte-level tokenizer with a chat template to a folder,
which every loading path then opens as it would a hub id; `tiny_encoder_decoder` a T5. `CleanBackbone` computes in its
own dtype from end to end, so that laws can be held to 1e-9 in float64; stock models pass through float32 inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from omniloom.backbone.base import Backbone, BackboneOutput, CacheView, attention_mask
from omniloom.backbone.doors import HookedFFN, LayerDoors, open_door
from omniloom.errors import ConfigError
from omniloom.sequence import Plan

__all__ = ["CHATML", "CleanBackbone", "tiny_encoder_decoder", "tiny_language_model", "tiny_tokenizer"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, 259 ids: one per byte and three specials; decodes what it encodes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {**{token: index for index, token in enumerate(_SPECIALS)}}
    vocabulary |= {token: len(_SPECIALS) + index for index, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_SPECIALS)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_SPECIALS[0],
        eos_token=_SPECIALS[2],
        pad_token=_SPECIALS[0],
        extra_special_tokens=_SPECIALS[1:2],
    )
    fast.chat_template = CHATML
    return fast


def tiny_language_model(
    folder: Path, *, width: int = 32, layers: int = 2, seed: int = 0, dtype: str = "float32"
) -> Path:
    """Save a random Llama of about 40 thousand parameters with its tokenizer; returns the folder."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_encoder_decoder(folder: Path, *, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Save a random T5 of about 60 thousand parameters with its tokenizer, which ends a text as T5's own does and has
    no chat template; returns the folder."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    end = (_SPECIALS[2], tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end[0]}", special_tokens=[end]
    )
    config = T5Config(  # type: ignore[call-arg]
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class _CleanAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, x: Tensor, position: Tensor, mask: Tensor | None, cache: list[Tensor] | None, doors: LayerDoors | None
    ) -> Tensor:
        rows, slots, width = x.shape
        q, k, v = (
            part(x).view(rows, slots, self.heads, -1).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, position), _rotate(k, position)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        if doors is not None:
            doors.watched(q * self.head_dim**-0.5, k)
        allowed = None if doors is None else doors.visible(slots, k.shape[2])
        if allowed is not None:
            causal = torch.ones(slots, k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - slots)
            mask = (causal if mask is None else mask) & allowed
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and slots > 1)
        added = None if doors is None else doors.beside(q * self.head_dim**-0.5, self)
        out = out if added is None else out + added
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(rows, slots, width))
        return mixed


class _CleanFFN(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up_proj, self.down_proj = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.gelu(self.up_proj(x)))
        return out


class _CleanLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = _CleanAttention(width, heads), _CleanFFN(width)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None, cache: list[Tensor] | None) -> Tensor:
        x = x + self.attention(self.norm_1(x), position, mask, cache, getattr(self, "adapters", None))
        out: Tensor = x + self.mlp(self.norm_2(x))
        return out


def _rotate(x: Tensor, position: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angle = position[:, None, :, None].to(x.dtype) * frequency
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


class CleanBackbone(Backbone):
    """A small decoder that stays in its own dtype; same contract as any backbone, no transformers inside."""

    def __init__(
        self, *, vocab_size: int = 259, width: int = 32, layers: int = 2, heads: int = 4, seed: int = 0
    ) -> None:
        super().__init__()
        self.vocab_size, self.width, self.layers, self.heads, self.seed = vocab_size, width, layers, heads, seed
        self.stop_ids = frozenset({2})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.tokens = nn.Embedding(vocab_size, width)
            self.blocks = nn.ModuleList(_CleanLayer(width, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            self.lm_head = nn.Linear(width, vocab_size, bias=False)

    @property
    def num_layers(self) -> int:
        return self.layers

    def hook_before(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        open_door(self._block(layer), "before", name, hook, context)

    def hook_after(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        open_door(self._block(layer), "after", name, hook, context)

    def hook_attention(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        open_door(self._block(layer), "attention", name, hook, context)

    def hook_visible(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        open_door(self._block(layer), "visible", name, hook, context)

    def hook_scores(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        open_door(self._block(layer), "scores", name, hook, context)

    def attention(self, layer: int) -> nn.Module:
        found: nn.Module = self._block(layer).attention
        return found

    def attention_heads(self, layer: int) -> int:
        return self.heads

    def hook_ffn(self, layer: int, name: str, hook: nn.Module, context: Any) -> None:
        block = self._block(layer)
        block.mlp = HookedFFN(block.mlp, open_door(block, "ffn", name, hook, context))

    def ffn(self, layer: int) -> nn.Module:
        stock: nn.Module = self._block(layer).mlp
        return stock.base if isinstance(stock, HookedFFN) else stock

    def _block(self, layer: int) -> Any:
        if not 0 <= layer < self.layers:
            raise ConfigError(f"this backbone has {self.layers} layers, none is number {layer}.")
        return self.blocks[layer]

    def embed(self, ids: Tensor) -> Tensor:
        embeds: Tensor = self.tokens(ids)
        return embeds

    def embedding_table(self) -> Tensor:
        return self.tokens.weight

    def forward(self, embeds: Tensor, plan: Plan, *, cache: Any = None, taps: Sequence[int] = ()) -> BackboneOutput:
        states = [embeds]
        for index, block in enumerate(self.blocks):
            states.append(
                block(states[-1], plan.position[0], attention_mask(plan), None if cache is None else cache[index])
            )
        return BackboneOutput(self.norm(states[-1]), {layer: states[layer] for layer in taps})

    def new_cache(self) -> list[list[Tensor]]:
        return [[] for _ in self.blocks]

    def step(self, embeds: Tensor, view: CacheView) -> Tensor:
        view.valid = torch.cat([view.valid, view.valid.new_ones(view.valid.shape[0], 1)], 1)
        x = embeds
        for index, block in enumerate(self.blocks):
            x = block(x, view.next_position[:, None], view.valid[:, None, None], view.cache[index])
        view.next_position = view.next_position + 1
        hidden: Tensor = self.norm(x)
        return hidden[:, -1]

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(hidden)
        return logits
