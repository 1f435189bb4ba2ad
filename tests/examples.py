"""The example model of the laws, and strategies for the conversations they are held on.

Four inputs that become different numbers of slots in different ways, one learned output, one adapter set; every weight
is random, the ones that start at zero too, so that nothing is invisible.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from hypothesis import strategies as st

from omniloom.config import RunConfig, load_run
from omniloom.interaction.lora import LoRA
from omniloom.model import OmniModel, compose
from omniloom.planner import ModalityRow, OutputPath, Planner
from omniloom.sequence import Codes, Item, Plan, Sample, Shape, Text, Turn
from omniloom.testing.doubles import CleanBackbone, tiny_language_model

LORA = {"type": "lora", "rank": 2, "targets": ["*.q_proj", "*.up_proj"], "routes": ["image", "drawing"]}


def example_values() -> dict:
    """The run of the example model, without data and stages."""
    image = {"type": "patch_vit", "patch_px": 8, "width": 32, "depth": 1, "heads": 2}
    sound = {"type": "log_mel_conv", "num_mels": 16, "width": 32, "depth": 1, "heads": 2, "conv_width": 8}
    points = {"type": "point_net", "width": 32, "groups": 4, "neighbours": 5, "depth": 1}
    queries = {"type": "qformer", "queries": 3, "width": 16, "depth": 1, "heads": 2}
    codec = {"type": "image_fsq", "size_px": 8, "grid": 2, "levels": [4, 4], "width": 8}
    return {
        "name": "example",
        "threads": 1,
        "backbone": {"type": "causal_lm", "id": "./language-model"},
        "adapters": {"lora": dict(LORA)},
        "modalities": {
            "image": _row("image", {"type": "image", "size_px": 16}, image, "mlp"),
            "sound": _row(
                "audio", {"type": "log_mel", "num_mels": 16}, sound, [{"type": "stack", "factor": 2}, "linear"]
            ),
            "motion": _row("series", "series", {"type": "series_conv", "channels": 2, "width": 32, "stride": 4}, "mlp"),
            "points": _row("points", {"type": "points", "count": 12}, points, queries),
            "drawing": {"payload": "image", "out": {"codec": codec, "layout": "flattened"}},
        },
    }


def _row(payload: str, processor: object, encoder: dict, projector: object) -> dict:
    return {"payload": payload, "in": {"processor": processor, "encoder": encoder, "projector": projector}}


def write_example(folder: Path) -> Path:
    """The language model and `run.yaml` in a folder."""
    tiny_language_model(folder / "language-model")
    (folder / "run.yaml").write_text(yaml.safe_dump(example_values(), sort_keys=False))
    return folder


def config_of(folder: Path, **changes: object) -> RunConfig:
    """The example's run with some keys replaced."""
    (folder / "changed.yaml").write_text(yaml.safe_dump({**example_values(), **changes}, sort_keys=False))
    return load_run(folder / "changed.yaml").config


def stock_model(folder: Path, **changes: object) -> OmniModel:
    """The example over a stock transformers Llama, no weight at zero."""
    return _stirred(compose(config_of(folder, **changes), base=folder))


def clean_model(stock: OmniModel, adapters: dict | None = None) -> OmniModel:
    """The parts of a model, in float64, around a backbone of float64 from end to end; `adapters`: instead of LoRA."""
    parts = {name: copy.deepcopy(part).double() for name, part in stock.parts.items()}
    rows = {}
    for name, row in stock.rows.items():
        path = row.input
        if path is not None:
            encoder, chain = stock.inputs[name]
            path = replace(path, encoder=parts[encoder], chain=[parts[link] for link in chain])
        output = row.output and OutputPath(parts[f"{name}/codec"], row.output.layout, row.output.block)
        rows[name] = ModalityRow(name, row.payload_kind, row.markers, path, output)
    planner = Planner(stock.planner.tokenizer, stock.planner.template, rows, stock.vocabulary)
    adapters = adapters or {"lora": LoRA(rank=2, targets=LORA["targets"], routes=LORA["routes"])}
    return _stirred(OmniModel(CleanBackbone(), planner, stock.inputs, parts, adapters).double()).eval()


def _stirred(model: OmniModel) -> OmniModel:
    """New adapters change nothing and new codes are all alike; both would hide a wrong route or a wrong row."""
    generator = torch.Generator().manual_seed(3)
    for component, name, value in model.named_component_parameters():
        if component in ("lora", "vocab") or name.endswith("lm_head.weight"):
            with torch.no_grad():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model


def raw_of(modality: str, seed: int) -> torch.Tensor:
    """A raw tensor of a modality; lengths differ with the seed where they can."""
    generator = torch.Generator().manual_seed(seed)
    shape = {
        "image": (3, 16, 16 + 8 * (seed % 2)),
        "sound": (9 + 16 * (seed % 3), 16),
        "motion": (5 + 3 * (seed % 4), 2),
        "points": (12, 3),
    }[modality]
    return torch.randn(shape, generator=generator)


def codes_of(seed: int) -> Codes:
    """Codes of a drawing."""
    book = torch.randint(0, 16, (4,), generator=torch.Generator().manual_seed(seed))
    return Codes((book,), Shape(4, (1, 2, 2)))


def media(modality: str, seed: int = 0) -> Item:
    """An input item."""
    return Item(modality, raw_of(modality, seed))


def drawing(seed: int = 0) -> Item:
    """An output item."""
    return Item("drawing", codes_of(seed))


def asked(*parts: Text | Item, name: str = "a") -> Sample:
    """A question without an answer."""
    return Sample(name, (Turn("user", parts),))


def answered(question: tuple[Text | Item, ...], *answer: Text | Item, name: str = "a") -> Sample:
    """A question and its answer."""
    return Sample(name, (Turn("user", question), Turn("assistant", answer)))


WORDS = st.text(alphabet="abc <|>\n.éß漢🙂", min_size=1, max_size=12)
SEEDS = st.integers(0, 11)
INPUTS = st.builds(media, st.sampled_from(["image", "sound", "motion", "points"]), SEEDS)
_ASKS = st.lists(st.builds(Text, WORDS) | INPUTS, min_size=1, max_size=4).map(tuple)
_SAYS = st.lists(st.builds(Text, WORDS) | st.builds(drawing, SEEDS), min_size=1, max_size=3).map(tuple)


@st.composite
def conversations(draw: st.DrawFn, *, rounds: int = 2) -> tuple[Turn, ...]:
    """One to `rounds` questions with answers, sometimes behind a system turn."""
    turns: list[Turn] = []
    if draw(st.booleans()):
        turns.append(Turn("system", (Text(draw(WORDS)),)))
    for _ in range(draw(st.integers(1, rounds))):
        turns += [Turn("user", draw(_ASKS)), Turn("assistant", draw(_SAYS))]
    return tuple(turns)


SAMPLES = st.builds(lambda turns: Sample("s", turns), conversations())
BATCHES = st.lists(SAMPLES, min_size=2, max_size=5)


def plans_of(model: OmniModel, samples: list[Sample]) -> list[Plan]:
    """A plan of each sample; ids count from 0."""
    return [model.planner.plan(Sample(str(index), sample.turns)) for index, sample in enumerate(samples)]


@torch.no_grad()
def logits_of(model: OmniModel, plan: Plan) -> list[torch.Tensor]:
    """(slots, V) logits of each document of a batch, in the order of the samples' ids."""
    logits = model.logits(model.hidden(plan))
    order = sorted(range(len(plan.samples)), key=lambda index: plan.samples[index])
    return [logits[plan.document == index] for index in order]


def largest(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest difference of any logit."""
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
