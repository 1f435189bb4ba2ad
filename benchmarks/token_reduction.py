"""What token reduction saves: time of a prompt, time of a step behind it, and bytes of the cache, with over without.

    python benchmarks/token_reduction.py [--slots 1500] [--width 512] [--layers 12] [--keep 0.5] [--repeats 7]

A random Llama reads one item of many slots and a short question, without the adapter and with it behind the fourth and
the eighth layer. The two take turns, so that both meet the same machine; medians of the processor's time, on one
thread. Under two minutes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from omniloom.backbone.base import CacheView
from omniloom.config import RunConfig
from omniloom.model import OmniModel, compose
from omniloom.sequence import Item, Plan, Sample, Text, Turn
from omniloom.testing.doubles import tiny_tokenizer

STEPS = 8


def models(folder: Path, width: int, layers: int, keep: float) -> dict[str, OmniModel]:
    """The same language model without and with the adapter."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(  # type: ignore[call-arg]
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    reduction = {"type": "token_reduction", "layers": [layers // 3 - 1, 2 * layers // 3 - 1], "keep": keep}
    row = {"processor": "features", "encoder": {"type": "identity", "width": width}, "projector": "linear"}
    values = {
        "name": "reduced",
        "backbone": {"id": str(folder)},
        "modalities": {"frames": {"payload": "series", "in": row}},
    }
    found = {}
    for name, adapters in (("without", {}), ("with", {"fewer": reduction})):
        found[name] = compose(RunConfig.model_validate({**values, "adapters": adapters}), base=folder)
    return found


@torch.inference_mode()
def measured(model: OmniModel, plan: Plan) -> tuple[float, float, int]:
    """(seconds of the prompt, seconds of a step, bytes of the cache behind the prompt)."""
    cache = model.backbone.new_cache()
    begin = time.process_time()
    done = model.run(plan, cache=cache)
    prompt_s = time.process_time() - begin
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    view = CacheView(cache, ~plan.is_padding, plan.next_position)
    facts, last = done.facts, plan.lengths - 1
    begin = time.process_time()
    for count in range(STEPS):
        facts = facts.step(torch.zeros(1, 1, dtype=torch.long), last + count)
        with model.context.of(facts):
            model.backbone.step(model.embed_ids(torch.full((1, 1), 7)), view)
    return prompt_s, (time.process_time() - begin) / STEPS, size


def main() -> None:
    """Print the three ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=1500)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        both = models(Path(folder), given.width, given.layers, given.keep)
    item = Item("frames", torch.randn(given.slots, given.width))
    sample = Sample("a", (Turn("user", (item, Text("What is to be seen here?"))),))
    plans = {name: model.planner.plan(sample, ask=True) for name, model in both.items()}
    times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in both}
    for repeat in range(given.repeats + 1):
        for name, model in both.items():
            found = measured(model, plans[name])
            if repeat:  # the first meets a cold machine
                times[name].append(found)
    print(f"{plans['with'].shape[1]} slots, width {given.width}, {given.layers} layers, keep {given.keep}")
    for number, (what, unit) in enumerate((("prompt, ms", 1e3), ("step, ms", 1e3), ("cache, MiB", 2**-20))):
        without, reduced = (statistics.median(row[number] for row in times[name]) * unit for name in both)
        print(f"{what:11} {without:8.1f} -> {reduced:8.1f}   x {reduced / without:.2f}")


if __name__ == "__main__":
    main()
