"""What is held of every interaction: nothing at first, the same in any batch and when decoded, loaded as saved."""

from __future__ import annotations

import torch

from omniloom.backbone.base import CacheView
from omniloom.checkpoint import load_model, save_model
from omniloom.model import OmniModel, Sampling, compose, generate
from omniloom.sequence import Plan, Sample
from tests.examples import asked, config_of, example_values, logits_of


def model_with(folder, *, backbone=None, modalities=None, **adapters) -> OmniModel:
    """The example model with these adapters; `backbone` and `modalities`: options laid over the example's own."""
    return compose(_config(folder, backbone, modalities, adapters), base=folder)


_PLAIN: dict[str, OmniModel] = {}


def plain_model(folder, *, modalities=None) -> OmniModel:
    """The example model without adapters, made once; not to be changed."""
    key = f"{folder} {modalities}"
    if key not in _PLAIN:
        _PLAIN[key] = model_with(folder, modalities=modalities)
    return _PLAIN[key]


def beside(*names: str) -> dict:
    """Rows of the example's modalities that fill no slots."""
    rows = example_values()["modalities"]
    return {name: {**rows[name], "in": {**rows[name]["in"], "insert": "inject"}} for name in names}


def _config(folder, backbone, modalities, adapters):
    values = example_values()
    changes = {"adapters": adapters, "backbone": {**values["backbone"], **(backbone or {})}}
    changes["modalities"] = {**values["modalities"], **(modalities or {})}
    return config_of(folder, **changes)


def stir(model, *adapters, scale=0.5, seed=1) -> None:
    """Random weights for everything an adapter has, what starts at zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for component, _, value in model.named_component_parameters():
            if component in adapters:
                value.copy_(torch.randn(value.shape, generator=generator) * scale)


@torch.no_grad()
def decoded(model: OmniModel, plan: Plan, tail: list[int]) -> float:
    """The largest difference of logits between decoding `tail` behind every row of a plan, and planning it at once."""
    cache = model.backbone.new_cache()
    done = model.run(plan, cache=cache)
    last = plan.lengths - 1
    view = CacheView(cache, ~plan.is_padding, plan.next_position)
    rows = torch.arange(plan.shape[0])
    facts, worst = done.facts, 0.0
    singles = [_row(plan, row) for row in range(plan.shape[0])]
    for count, token in enumerate(tail):
        facts = facts.step(torch.zeros(plan.shape[0], 1, dtype=torch.long), last)
        last = last + 1
        ids = torch.full((plan.shape[0], 1), token)
        with model.context.of(facts):
            ours = model.logits(model.backbone.step(model.embed_ids(ids), view))
        for row in rows.tolist():
            whole = _continued(singles[row], tail[: count + 1])
            theirs = model.logits(model.hidden(whole))[0, -1]
            worst = max(worst, float((ours[row] - theirs).abs().max()))
    return worst


def _row(plan: Plan, row: int) -> Plan:
    """One row of a stacked plan by itself, without its padding."""
    from dataclasses import replace

    length = int(plan.lengths[row])
    cut = {name: value[..., row : row + 1, :length] for name, value in plan.tensors().items()}
    mine = [index for index, item in enumerate(plan.items) if item.row == row]
    number = int(plan.document[row, 0])
    cut["document"] = cut["document"] - number
    if mine:
        cut["item"] = torch.where(cut["item"] >= 0, cut["item"] - mine[0], -1)
    items = tuple(replace(plan.items[index], row=0) for index in mine)
    samples = (plan.samples[number],)
    return replace(plan, **cut, items=items, samples=samples).with_sources()


def _continued(plan: Plan, ids: list[int]) -> Plan:
    """A plan of one document with more text behind it, learned as an answer is."""
    from dataclasses import replace

    new = {name: value[..., -1:].repeat(*[1] * (value.dim() - 1), len(ids)) for name, value in plan.tensors().items()}
    new["ids"] = torch.tensor([ids])
    new["kind"] = torch.full((1, len(ids)), 1)
    for name in ("item", "source", "modality", "span"):
        new[name] = torch.full((1, len(ids)), -1)
    new["route"] = torch.zeros(1, len(ids), dtype=torch.long)
    first = int(plan.next_position[0])
    new["position"] = torch.arange(first, first + len(ids)).expand(plan.position.shape[0], 1, -1)
    new["label"] = torch.full((1, len(ids)), -100)
    joined = {name: torch.cat([value, new[name].to(value)], dim=-1) for name, value in plan.tensors().items()}
    joined["label"][0, -1 - len(ids) : -1] = torch.tensor(ids)
    return replace(plan, **joined)


def assert_decoding(model: OmniModel, samples: list[Sample]) -> None:
    """Answering with the cache is the whole pass again, and a batch of questions gets the answers of each alone."""
    questions = [asked(*sample.turns[0].parts, name=str(number)) for number, sample in enumerate(samples)]
    plans = [model.planner.plan(question, ask=True) for question in questions]
    assert decoded(model, Plan.stack(plans), [7, 8, 9]) <= 1e-4
    replies = generate(model, plans, Sampling(max_new=5))
    assert [reply.ids for reply in replies] == [generate(model, [plan], Sampling(max_new=5))[0].ids for plan in plans]


def gradients_of(model: OmniModel, component: str, plan: Plan) -> dict[str, torch.Tensor | None]:
    """The gradients of a component that trains alone; asserts that nothing else got any, and leaves none behind."""
    trained = model.train_only([component])
    try:
        model.loss(plan)["text"][0].backward()
        others = [value for part, _, value in model.named_component_parameters() if part != component]
        assert all(value.grad is None for value in others)
        return {name: value.grad for name, value in trained.items()}
    finally:
        model.zero_grad(set_to_none=True)
        model.requires_grad_(False).eval()


def together(model: OmniModel, samples: list[Sample], length: int = 400) -> float:
    """The largest difference of logits between samples alone, padded together, and packed."""
    plans = [model.planner.plan(Sample(f"{index:03d}", sample.turns)) for index, sample in enumerate(samples)]
    alone = [logits_of(model, plan)[0] for plan in plans]
    worst = 0.0
    for batch in (Plan.stack(plans), Plan.pack(plans, length)):
        ours = logits_of(model, batch)
        worst = max(worst, *(float((a - b).abs().max()) for a, b in zip(ours, alone, strict=True)))
    return worst


def reloaded(model: OmniModel, folder, target, *, backbone=None, modalities=None, **adapters) -> OmniModel:
    """The model saved as a run and loaded again; `adapters` and the rest as they were given to `model_with`."""
    import shutil

    for part in ("language-model", "tower"):
        if (folder / part).is_dir():
            shutil.copytree(folder / part, target / part)
    save_model(model, _config(folder, backbone, modalities, adapters), target, trained=list(model.components()))
    return load_model(target)[0]
