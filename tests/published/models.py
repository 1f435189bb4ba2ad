"""Published models in small: transformers' own classes with random weights, a byte-level tokenizer, their templates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from omniloom.media import Audio, Image, Video
from omniloom.model import OmniModel, Sampling, generate
from omniloom.sequence import Item, Kind, Plan, Sample, Text, Turn
from omniloom.testing.doubles import tiny_tokenizer

# 259 bytes and specials of the tiny tokenizer; those of a model follow.
FIRST_SPECIAL = 259
TEXT = {
    "vocab_size": 280, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.2, "bos_token_id": 0,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def write(folder: Path, model: Any, specials: Sequence[str], template: str | None, **files: Any) -> Path:
    """The model, its tokenizer with these special tokens and its chat template, and JSON files, in a folder."""
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def stirred(model: Any, seed: int = 0) -> Any:
    """A model none of whose weights hides a wrong row: norms and biases are random too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            is_norm = "norm" in name.lower() and name.endswith("weight")
            value.copy_(1 + 0.1 * noise if is_norm else 0.2 * noise)
    return model.float().eval()


def picture(seed: int, height: int = 20, width: int = 28) -> Image:
    """A smooth random picture."""
    rng = np.random.default_rng(seed)
    coarse = Pillow.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return Image(np.asarray(coarse.resize((width, height), Pillow.Resampling.BICUBIC)))


def image(seed: int, name: str = "image", **size: int) -> Item:
    return Item(name, picture(seed, **size))


def clip(seed: int, frames: int, rate_hz: float = 2.0) -> Video:
    """A clip of smooth random pictures."""
    pixels = np.stack([picture(seed + frame).pixels for frame in range(frames)])
    return Video(pixels, np.arange(frames) / rate_hz)


def wave(seed: int, milliseconds: int) -> Audio:
    """A tone with noise, at 16 kHz."""
    count = 16 * milliseconds
    tone = np.sin(2 * np.pi * (200 + 97 * seed) * np.arange(count) / 16_000)
    noise = np.random.default_rng(seed).normal(0, 0.1, count)
    return Audio((0.5 * tone + noise).astype(np.float32)[None], 16_000)


def sound(seed: int, milliseconds: int) -> Item:
    return Item("audio", wave(seed, milliseconds))


def user(*parts: str | Item) -> Turn:
    return Turn("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def said(text: str) -> Turn:
    return Turn("assistant", (Text(text),))


def sample(*turns: Turn) -> Sample:
    return Sample("s", tuple(turns))


def messages(sample: Sample) -> list[dict[str, Any]]:
    """A sample as chat templates of multimodal models take it."""
    return [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": part.modality}
                for part in turn.parts
            ],
        }
        for turn in sample.turns
    ]


def rendered(model: OmniModel, sample: Sample) -> str:
    """What the tokenizer's own template makes of a conversation that asks for an answer."""
    text: str = model.planner.tokenizer.apply_chat_template(
        messages(sample), tokenize=False, add_generation_prompt=True
    )
    return text


def ids_of(model: OmniModel, text: str) -> list[int]:
    """The ids of a template's text, specials as specials."""
    return list(model.planner.tokenizer(text, add_special_tokens=False)["input_ids"])


def filled(plan: Plan, placeholders: dict[str, int], row: int = 0) -> list[int]:
    """The ids of a plan's row with a model's placeholders in the slots of media."""
    slots = int(plan.lengths[row])
    ids = plan.ids[row, :slots].tolist()
    for slot in range(slots):
        if int(plan.kind[row, slot]) == int(Kind.MEDIA):
            ids[slot] = placeholders[plan.modalities[int(plan.modality[row, slot])]]
    return ids


@torch.no_grad()
def logits_of(model: OmniModel, plan: Plan) -> list[torch.Tensor]:
    """(slots, vocabulary) logits of every row of a batch."""
    logits = model.logits(model.hidden(plan))
    return [logits[row, : int(length)] for row, length in enumerate(plan.lengths)]


@torch.no_grad()
def assert_logits(
    theirs: Any, model: OmniModel, plans: Sequence[Plan], inputs: Sequence[dict[str, Any]]
) -> list[torch.Tensor]:
    """Logits of every plan alone, and of all in one padded batch, are those of the original; which are returned."""
    expected = [theirs(**given).logits[0] for given in inputs]
    for plan, logits in zip(plans, expected, strict=True):
        torch.testing.assert_close(logits_of(model, plan)[0], logits, atol=1e-4, rtol=0)
    for ours, logits in zip(logits_of(model, Plan.stack(plans)), expected, strict=True):
        torch.testing.assert_close(ours, logits, atol=1e-4, rtol=0)
    return expected


def assert_answers(
    theirs: Any, model: OmniModel, plans: Sequence[Plan], inputs: Sequence[dict[str, Any]], max_new: int = 8
) -> None:
    """Greedy answers are those that the original's `generate` gives."""
    replies = generate(model, plans, Sampling(max_new=max_new))
    for given, reply in zip(inputs, replies, strict=True):
        ids = theirs.generate(**given, max_new_tokens=max_new, do_sample=False)
        assert list(reply.ids) == ids[0, given["input_ids"].shape[1] :].tolist()
