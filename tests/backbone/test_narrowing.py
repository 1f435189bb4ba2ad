"""What a layer is given where some slots pass it by, slot for slot; and that nobody else can tell."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from omniloom.backbone.base import CacheView
from omniloom.backbone.causal_lm import CausalLM
from omniloom.backbone.narrowing import Narrowing
from omniloom.errors import ConfigError
from omniloom.interaction.base import HookContext, SlotFacts
from omniloom.sequence import Plan
from tests.backbone.test_causal_lm import _TINY, UNMASKABLE, model_of, prompts_of
from tests.backbone.test_hooking import MODELS, Hiding, facts_of, hooked, stir, written

# Three rows of six slots: two documents, one and padding, one.
DOCUMENT = torch.tensor([[0, 0, 0, 1, 1, 1], [2, 2, 2, 2, -1, -1], [3, 3, 3, 3, 3, 3]])
RUNS = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0]]).bool()
KEPT = [[1, 2, 4, 5], [2, 3], [2, 3, 4]]


class Passing(nn.Module):
    """The second of every four slots of a row passes a layer by."""

    def forward(self, facts):
        return facts.slot % 4 != 1


class Unread(nn.Module):
    """The reference: those slots run, and are read by themselves alone."""

    def forward(self, slots, keys, facts):
        self.runs = self.runs if facts.is_step else Passing()(facts)
        read = nn.functional.pad(self.runs, (0, keys - self.runs.shape[1]), value=True)[:, None]
        return (read if facts.is_step else read | torch.eye(slots, dtype=torch.bool))[:, None]


@pytest.fixture
def facts():
    return SlotFacts(torch.arange(18).view(3, 6), DOCUMENT, torch.arange(6).expand(3, 6))


@pytest.fixture
def narrowing(facts):
    return Narrowing(RUNS, facts)


def test_kept_slots_are_in_order_and_padding_is_never_kept(narrowing, facts):
    assert narrowing.slot.tolist() == [[1, 2, 4, 5], [2, 3, 2, 2], [2, 3, 4, 2]] and not narrowing.is_even
    told = narrowing.places.facts(facts)
    assert told.document.tolist() == [[0, 0, 1, 1], [2, 2, -1, -1], [3, 3, 3, -1]]
    assert told.route[1, :2].tolist() == [8, 9] and told.kept is facts.kept
    assert narrowing.is_slot(6)[:, 0, 0].tolist() == [
        [True] * 6,
        [True] * 2 + [False] * 2 + [True] * 2,
        [True] * 3 + [False] + [True] * 2,
    ]


def test_hidden_states_rotations_and_positions_move_with_their_slots(narrowing):
    hidden, shared, axes = torch.randn(3, 6, 2), torch.randn(1, 6, 4), torch.randn(3, 1, 6)
    by_row = [narrowing.along(hidden, 2), narrowing.along(shared, 2), narrowing.along(axes, 1)]
    for row, slots in enumerate(KEPT):
        assert torch.equal(by_row[0][row, : len(slots)], hidden[row, slots])
        assert torch.equal(by_row[1][row, : len(slots)], shared[0, slots])
        assert torch.equal(by_row[2][:, row, : len(slots)], axes[:, 0, slots])


@pytest.mark.parametrize("rows", [1, 3])
def test_a_mask_is_cut_to_kept_slots_and_every_place_has_something_to_read(narrowing, rows):
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    mask = (causal & (DOCUMENT[:, :, None] == DOCUMENT[:, None]) if rows == 3 else causal[None])[:, None]
    cut = narrowing.mask(mask) & narrowing.is_slot(4)
    for row, slots in enumerate(KEPT):
        expected = mask[row if rows == 3 else 0, 0][slots][:, slots]
        assert torch.equal(cut[row, 0, : len(slots), : len(slots)], expected)
    assert bool(cut.any(-1).all())
    assert narrowing.mask(None) is None


def test_of_a_step_only_the_keys_are_cut(narrowing):
    mask = torch.arange(8).expand(3, 1, 1, 8)
    assert narrowing.mask(mask)[:, 0, 0].tolist() == [[1, 2, 4, 5, 6, 7], [2, 3, 2, 2, 6, 7], [2, 3, 4, 2, 6, 7]]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_slot_that_passes_layers_by_is_as_if_masked_there_and_its_keys_are_not_kept(name, tmp_path):
    """Beside hooks at every other door, one that narrows what may be read among them."""
    folder = written(name, tmp_path)
    ours, theirs = hooked(folder), hooked(folder)
    for backbone, context in (ours, theirs):
        stir(backbone)
        for layer in range(backbone.num_layers):
            backbone.hook_visible(layer, "hiding", Hiding(), context)
            if layer and backbone is ours[0]:
                backbone.hook_kept(layer, "fewer", Passing(), context)
            elif layer:
                backbone.hook_visible(layer, "unread", Unread(), context)
    plans = prompts_of(model_of(ours[0]))
    for batch in (plans[1], Plan.stack(plans), Plan.pack(plans, 100)):
        caches = [backbone.new_cache() for backbone, _ in (ours, theirs)]
        stays = (batch.document >= 0) & Passing()(facts_of(batch))
        found, facts = [], []
        for (backbone, context), cache in zip((ours, theirs), caches, strict=True):
            facts.append(facts_of(batch))
            with context.of(facts[-1]):
                found.append(backbone(backbone.embed(batch.ids), batch, cache=cache).hidden)
                assert context.facts is facts[-1]
        torch.testing.assert_close(found[0][stays], found[1][stays], atol=1e-4, rtol=1e-4)
        lengths = [[layer.keys.shape[-2] for layer in cache.layers] for cache in caches]
        rest = ours[0].num_layers - 1
        assert lengths == [
            [batch.shape[1], *[int(stays.sum(1).max())] * rest],
            [batch.shape[1]] * (rest + 1),
        ]
        if batch.is_packed:
            continue
        views = [CacheView(cache, ~batch.is_padding, batch.lengths.clone()) for cache in caches]
        last = batch.lengths - 1
        for count in range(3):
            steps = []
            for number, (backbone, context) in enumerate((ours, theirs)):
                facts[number] = facts[number].step(torch.zeros(len(last), 1, dtype=torch.long), last + count)
                with context.of(facts[number]):
                    ids = torch.full((len(last), 1), 20 + count)
                    steps.append(backbone.step(backbone.embed(ids), views[number]))
            torch.testing.assert_close(*steps, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options", "layer", "message"),
    [
        ("llama", {}, 0, "layer 0, whose cache tells"),
        ("llama", {}, 9, "none is number 9"),
        (
            "gemma3n_text",
            {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 259},
            1,
            "Gemma3nTextDecoderLayer: it is given 'per_layer_input' beside",
        ),
        ("falcon_h1", UNMASKABLE["falcon_h1"][1], 1, "layers of a 'falcon_h1', which counts slots"),
    ],
)
def test_slots_pass_no_layer_by_that_cannot_be_narrowed(tmp_path, kind, options, layer, message):
    config = transformers.AutoConfig.for_model(kind, **{**_TINY, **options})
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        CausalLM(id=str(tmp_path)).hook_kept(layer, "a", Passing(), HookContext())
