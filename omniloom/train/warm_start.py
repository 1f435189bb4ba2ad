"""Warm start: teach projectors to speak in the language model's own embeddings, before it passes at all.

The rows of an item are drawn towards the token embeddings of that training item's own text (its answer), and away
from the texts of the other items in the batch. No pass through the language model: thousands of items a second. There
is no list of candidate answers anywhere; an item knows only its own text.

Source: regression onto text embeddings as initial alignment, as in ImageBind-LLM's and Macaw-LLM's alignment to the
embedding matrix (arXiv:2309.03905, arXiv:2306.09093); in-batch contrast as in CLIP (arXiv:2103.00020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omniloom.config import WarmStartConfig
from omniloom.data.mixture import Mixture
from omniloom.data.pipeline import seed_of
from omniloom.errors import ConfigError, TrainingError
from omniloom.model import OmniModel
from omniloom.sequence import PlannedItem
from omniloom.train.optimizer import set_progress
from omniloom.train.stage import Trainer

__all__ = ["alignment_loss", "spoken_targets", "warm_start"]

_TEMPERATURE = 0.07


def spoken_targets(model: OmniModel, texts: Sequence[str], lengths: Sequence[int]) -> list[Tensor]:
    """One (length, D) float32 target per item: row j is the embedding of token j of its text, and the last token's
    from there on. A text of more tokens than rows is spread: row j speaks the mean of its share of the tokens."""
    targets = []
    for text, length in zip(texts, lengths, strict=True):
        ids = torch.tensor(model.planner.text_ids(text), device=model.device)
        # Not the table's rows: some models scale them on the way in, and the rows of an item stand beside scaled ones.
        tokens = model.backbone.embed(ids[None])[0].detach().float()
        if len(ids) <= length:
            targets.append(tokens[torch.arange(length, device=model.device).clamp(max=len(ids) - 1)])
        else:
            shares = torch.tensor_split(tokens, length)
            targets.append(torch.stack([share.mean(0) for share in shares]))
    return targets


def alignment_loss(rows: Sequence[Tensor], targets: Sequence[Tensor], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(sum, count) over items of: distance of every row to its target, relative to the targets' size, and in-batch
    contrast among the distinct texts. A loss coupled over the batch, so it is exempt from packing invariance."""
    distance = torch.stack(
        [((row.float() - target) ** 2).mean() / (target**2).mean() for row, target in zip(rows, targets, strict=True)]
    )
    distinct = list(dict.fromkeys(texts))
    means = torch.stack([targets[texts.index(text)].mean(0) for text in distinct])
    said = torch.stack([row.float().mean(0) for row in rows])
    centre = means.mean(0)
    logits = F.normalize(said - centre, dim=-1) @ F.normalize(means - centre, dim=-1).T / _TEMPERATURE
    which = torch.tensor([distinct.index(text) for text in texts], device=logits.device)
    contrast = F.cross_entropy(logits, which, reduction="none") if len(distinct) > 1 else torch.zeros_like(distance)
    return (distance + contrast).sum(), torch.tensor(float(len(rows)), device=logits.device)


def warm_start(trainer: Trainer, config: WarmStartConfig, after: Callable[[int, dict[str, float]], None]) -> None:
    """Run the warm start of a stage on whatever of its parameters stand between a medium and the language model.

    Samples with exactly one input item take part: only there is the answer that item's own text. Items that a fuser
    takes, or that fill no slots, do not: their rows are not what the language model reads as a word.

    Raises:
        ConfigError: the stage trains no projector, so there is nothing to warm.
        TrainingError: its data hold no such sample, or the loss is not finite.
    """
    model, stage = trainer.model, trainer.stage
    paths = {name: {encoder, *chain} for name, (encoder, chain) in model.inputs.items()}
    warmed = {
        name: value
        for name, value in trainer.trainable.items()
        if any(_component(name) in path for path in paths.values())
    }
    if not warmed:
        raise ConfigError(f"stage {stage.config.name!r} asks for a warm start but trains no encoder or projector.")
    optimizer = torch.optim.AdamW(
        [{"params": list(warmed.values()), "lr": config.lr, "peak_lr": config.lr}], betas=(0.9, 0.98)
    )
    mixture = Mixture(stage.sources, stage.config.data, seed=stage.seed, batch=config.batch)
    for step in range(config.steps):
        torch.manual_seed(seed_of(stage.seed, stage.config.name, "warm_start", step))
        set_progress(optimizer, step, config.steps, 0.05)
        optimizer.zero_grad(set_to_none=True)
        # A stage of its own for the mixture: its epochs are not those of the steps that follow.
        batch = trainer.prepared(mixture(f"{stage.config.name}/warm_start", step))
        batch = [
            (source, sample) for source, sample in batch if sum(1 for _ in sample.items()) == 1 and sample.answer()
        ]
        groups: dict[str, list[tuple[PlannedItem, str]]] = {}
        for (_, sample), items in zip(batch, trainer.items(batch, step), strict=True):
            answer = sample.answer()
            for item in items:
                if item.role == "in" and answer is not None and answer.text.strip():
                    groups.setdefault(item.modality, []).append((item, answer.text))
        groups = {
            name: group for name, group in groups.items() if any(_component(key) in paths[name] for key in warmed)
        }
        if not groups:
            raise TrainingError(
                f"stage {stage.config.name!r}: no sample of the warm start has one input item that fills slots itself, "
                "and an answer in text. Leave warm_start out where items are fused or read inside the layers."
            )
        losses: dict[str, float] = {}
        total = torch.zeros((), device=model.device)
        for name, group in groups.items():
            texts = [text for _, text in group]
            rows = list(model.project(name, [item for item, _ in group]).items())
            value, count = alignment_loss(rows, spoken_targets(model, texts, [row.shape[0] for row in rows]), texts)
            total = total + value / count
            losses[f"loss/{name}"] = float(value.detach() / count)
        if not bool(torch.isfinite(total)):
            raise TrainingError(
                f"warm start of stage {stage.config.name!r}, step {step}: the loss is not finite. Lower its lr."
            )
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(warmed.values()), stage.config.clip)
        optimizer.step()
        after(step, {"loss": float(total.detach()) / len(groups), **losses})


def _component(parameter: str) -> str:
    return parameter.partition(".")[0]
