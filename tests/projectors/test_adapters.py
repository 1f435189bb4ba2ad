from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError
from omniloom.layers import Block
from omniloom.projectors.adapters import BlockAdapters, LowRank, PathAdapter


def test_a_new_low_rank_map_adds_nothing_and_passes_through_rank_numbers():
    part, x = LowRank(5, 6, 2), torch.randn(3, 5)
    assert torch.equal(part(x), torch.zeros(3, 6))
    part.up.weight.data.normal_()
    torch.testing.assert_close(part(x), x @ part.down.weight.T @ part.up.weight.T)
    assert part.down.weight.shape == (2, 5)


def woven():
    """Adapters of three modalities in order, none of them silent."""
    torch.manual_seed(0)
    parts = {"a": PathAdapter(4, 6, 2, ()), "b": PathAdapter(4, 6, 2, ("a",)), "c": PathAdapter(4, 6, 2, ("a", "b"))}
    for part in parts.values():
        for parameter in part.parameters():
            parameter.data.normal_()
    return {name: part.eval() for name, part in parts.items()}


def test_a_path_is_the_gated_sum_over_all_modalities_up_to_its_own():
    parts, x = woven(), torch.randn(3, 4)
    last = parts["c"]
    gates = torch.softmax(x @ last.gate.weight.T, -1)
    expected = gates[:, 2:] * (x @ last.down.weight.T @ last.up.weight.T)
    for index, name in enumerate(("a", "b")):
        there, inner = parts[name], last.inner[name].weight
        way = x @ there.down.weight.T @ inner.T @ there.up.weight.T
        expected = expected + gates[:, index : index + 1] * way
    torch.testing.assert_close(last.weave(x, parts), expected)


def test_the_first_modality_has_an_adapter_and_no_gate():
    parts, x = woven(), torch.randn(3, 4)
    assert {name for name, _ in parts["a"].named_parameters()} == {"down.weight", "up.weight"}
    assert torch.equal(parts["a"].weave(x, parts), parts["a"](x))


def test_a_new_modality_starts_in_equal_parts_of_what_the_earlier_ones_learned():
    parts, x = woven(), torch.randn(3, 4)
    new = PathAdapter(4, 6, 2, ("a", "b")).eval()
    torch.testing.assert_close(new.weave(x, parts), (parts["a"](x) + parts["b"](x)) / 3)


def test_gates_are_noisy_in_training_mode_alone():
    parts, x = woven(), torch.randn(3, 4)
    assert torch.equal(parts["c"].weave(x, parts), parts["c"].weave(x, parts))
    parts["c"].train()
    assert not torch.allclose(parts["c"].weave(x, parts), parts["c"].weave(x, parts))


def test_the_size_of_the_noise_is_learned():
    part, others = woven()["c"].train(), woven()
    part.weave(torch.randn(3, 4), others).square().sum().backward()
    assert bool(part.noise.weight.grad.any())


@pytest.mark.parametrize(
    "kind,names",
    [
        ("none", set()),
        ("lora", {"attention_query", "attention_value"}),
        ("path", {f"{layer}_{name}" for layer in ("attention", "cross") for name in ("query", "key", "value")}),
    ],
)
def test_each_kind_stands_at_its_linear_maps(kind, names):
    assert set(BlockAdapters(kind, Block(8, 2, memory_width=8), 2, ())) == names


def test_a_block_without_cross_attention_has_no_adapters_there():
    assert set(BlockAdapters("path", Block(8, 2), 2, ())) == {"attention_query", "attention_key", "attention_value"}


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'lora'"):
        BlockAdapters("loras", Block(8, 2), 2, ())
