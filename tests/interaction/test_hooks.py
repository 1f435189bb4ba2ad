"""Which linear layers a hook reaches, and that a hooked layer without hooks is the stock one."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from omniloom.errors import ConfigError
from omniloom.interaction.base import HookContext, SlotFacts
from omniloom.interaction.hooks import HookedLinear, LinearHook, hook_linears, linear_names

_TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}


class Plus(LinearHook):
    def forward(self, x, facts):
        return x.new_ones(*x.shape[:-1], 3)


def test_a_layer_without_hooks_gives_the_stock_result_bit_for_bit():
    layer, x = nn.Linear(5, 3), torch.randn(2, 4, 5)
    hooked = HookedLinear(layer, HookContext())
    assert torch.equal(hooked(x), layer(x)) and hooked.weight is layer.weight


def test_hooks_are_added_to_the_result_and_are_children_of_their_layer():
    model = nn.Sequential(nn.Linear(5, 3))
    stock = model[0]
    hook_linears(model, "one", {"0": Plus()}, HookContext())
    hook_linears(model, "two", {"0": Plus()}, HookContext())
    x = torch.randn(2, 5)
    assert torch.equal(model(x), stock(x) + 1 + 1)
    assert model[0].base is stock and set(model[0].adapters) == {"one", "two"}


def test_a_hook_is_told_the_facts_of_this_forward_only():
    seen = []

    class Watching(LinearHook):
        def forward(self, x, facts):
            seen.append(facts)
            return torch.zeros(())

    context = HookContext()
    layer = HookedLinear(nn.Linear(2, 2), context)
    layer.adapters["w"] = Watching()
    one = torch.tensor([[1]])
    facts = SlotFacts(one, one, one)
    with context.of(facts):
        layer(torch.zeros(1, 1, 2))
    layer(torch.zeros(1, 1, 2))
    assert seen[0] is facts and seen[1] is None


def test_a_glob_that_matches_no_layer_is_refused_with_the_endings_there_are():
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_TINY))
    with pytest.raises(ConfigError, match=r"'\*.qproj' matches no linear layer. Layers end in: .*q_proj"):
        linear_names(model, ["*.v_proj", "*.qproj"])


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPTNeoXJapaneseForCausalLM"])
def test_the_output_head_is_never_hooked(kind):
    cls = getattr(transformers, kind)
    options = {key: value for key, value in _TINY.items() if key != "intermediate_size" or "Llama" in kind}
    model = cls(cls.config_class(**options))
    names = linear_names(model, ["*"])
    head = next(name for name, part in model.named_modules() if part is model.get_output_embeddings())
    assert isinstance(model.get_submodule(head), nn.Linear) and head not in names
    assert len(names) == sum(isinstance(part, nn.Linear) for part in model.modules()) - 1


def test_layers_are_found_again_after_they_were_hooked():
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_TINY))
    before = linear_names(model, ["*"])
    hook_linears(model, "a", {name: Plus() for name in before[:3]}, HookContext())
    assert linear_names(model, ["*"]) == before
