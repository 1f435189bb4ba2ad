from __future__ import annotations

import pytest
import torch

from omniloom.errors import ConfigError, ShapeError
from omniloom.layers import sinusoids
from omniloom.projectors import Context
from omniloom.projectors.qformer import QFormer
from omniloom.sequence import Packed

WORDS = torch.randn(12, 6, generator=torch.Generator().manual_seed(3))


def small(*modalities, **options):
    torch.manual_seed(0)
    part = QFormer(4, 6, **{"queries": 3, "width": 8, "heads": 2, **options})
    for modality in modalities:
        part.serve(modality)
    return part.eval()


def say(text):
    return WORDS[[len(word) for word in text.split()]]


def told(*instructions):
    return Context(instructions=instructions, say=say)


def disturb(module):
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw)


def test_qformer_gives_k_rows_for_any_number_of_rows():
    part = QFormer(4, 6, queries=3, width=8, heads=2)
    out = part(Packed.of([torch.randn(1, 4), torch.randn(40, 4)]), Context())
    assert out.lengths == [3, 3] and out.x.shape == (6, 6)


def test_qformer_ignores_the_order_of_the_rows_it_reads():
    part, rows = QFormer(4, 6, queries=3, width=8, heads=2), torch.randn(7, 4)
    torch.testing.assert_close(part(Packed.of([rows]), Context()).x, part(Packed.of([rows.flip(0)]), Context()).x)


def test_qformer_rows_differ_from_the_first_step():
    out = QFormer(4, 6, queries=8, width=16, heads=2)(Packed.of([torch.randn(9, 4)]), Context()).x
    assert torch.pdist(out).min() > 0.01


# -- queries of a modality's own ------------------------------------------------------------------------------------


def test_modalities_share_the_trunk_and_not_the_queries():
    part, rows = small("a", "b", own_queries=True), Packed.of([torch.randn(5, 4)])
    before = part(rows, Context(modality="a")).x
    assert not torch.allclose(before, part(rows, Context(modality="b")).x)
    disturb(part.own["b"])
    assert torch.equal(part(rows, Context(modality="a")).x, before)
    disturb(part.blocks)
    assert not torch.allclose(part(rows, Context(modality="a")).x, before)


def test_own_queries_and_norm_take_the_place_of_the_shared_ones():
    names = {name for name, _ in small("a", own_queries=True).named_parameters()}
    assert {"own.a.query", "own.a.memory_norm.weight", "own.a.memory_norm.bias"} <= names
    assert not names & {"query", "memory_norm.weight"}


def test_without_parameters_of_its_own_a_modality_adds_none():
    assert not [name for name, _ in small("a", "b").named_parameters() if name.startswith("own")]


# -- queries that know the instruction ------------------------------------------------------------------------------


def test_tokens_of_the_instruction_take_part_in_the_self_attention_of_the_queries():
    part, rows = small(instruction="llm", depth=1), torch.randn(5, 4)
    block = part.blocks[0]
    tokens = part.instruction_map(part.instruction_norm(say("what is it"))) + sinusoids(torch.arange(3), 8)
    joined = torch.cat([part.query, tokens])[None]
    x = block.attend(joined)[:, :3]
    x = block.feed(block.read(x, part.memory_map(part.memory_norm(rows))[None]))
    torch.testing.assert_close(part(Packed.of([rows]), told("what is it")).x, part.map(part.norm(x))[0])


def test_another_instruction_reads_other_rows_and_word_order_counts():
    part, rows = small(instruction="llm"), Packed.of([torch.randn(5, 4)])
    one, two, turned = (part(rows, told(text)).x for text in ("what is it", "how loud", "it is what"))
    assert not torch.allclose(one, two) and not torch.allclose(one, turned)


def test_an_empty_instruction_is_no_instruction_beside_a_long_one():
    part, rows = small(instruction="llm"), torch.randn(5, 4)
    plain = small()
    plain.load_state_dict({k: v for k, v in part.state_dict().items() if "instruction" not in k}, strict=True)
    together = part(Packed.of([rows, rows]), told("", "what is it")).x
    torch.testing.assert_close(together[:3], plain(Packed.of([rows]), Context()).x)


def test_an_instruction_that_nobody_can_say_is_refused():
    with pytest.raises(ConfigError, match="language model"):
        small(instruction="llm")(Packed.of([torch.randn(5, 4)]), Context(instructions=["what"]))


def test_one_instruction_for_two_items_is_refused():
    with pytest.raises(ShapeError, match="1 instructions for 2 items"):
        small(instruction="llm")(Packed.of([torch.randn(5, 4)] * 2), told("what"))


def test_an_instruction_of_another_width_is_refused():
    context = Context(instructions=["what"], say=lambda text: torch.zeros(1, 5))
    with pytest.raises(ShapeError, match=r"expected \(N, 6\)"):
        small(instruction="llm")(Packed.of([torch.randn(5, 4)]), context)


# -- adapters of a modality's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "path"])
def test_new_adapters_change_nothing(kind):
    part, rows = small("a", adapters=kind, rank=2), Packed.of([torch.randn(5, 4)])
    assert torch.equal(part(rows, Context(modality="a")).x, small()(rows, Context()).x)


@pytest.mark.parametrize("kind", ["lora", "path"])
def test_each_adapter_of_a_modality_counts(kind):
    part, rows = small("a", "b", adapters=kind, rank=2), Packed.of([torch.randn(5, 4), torch.randn(2, 4)])
    disturb(part.own)
    before = part(rows, Context(modality="b")).x
    for name, parameter in part.own["b"].named_parameters():
        if "noise" not in name:
            parameter.data += 0.5 * torch.randn(parameter.shape)
            after = part(rows, Context(modality="b")).x
            assert not torch.equal(after, before), name
            before = after


@pytest.mark.parametrize("kind", ["lora", "path"])
@pytest.mark.parametrize("own_queries", [False, True])
def test_training_a_modality_added_later_leaves_the_rows_of_earlier_ones_bit_identical(kind, own_queries):
    options = {"adapters": kind, "rank": 2, "own_queries": own_queries}
    part, rows = small("a", "b", **options), Packed.of([torch.randn(5, 4), torch.randn(9, 4)])
    disturb(part)
    before = {name: part(rows, Context(modality=name)).x.detach() for name in ("a", "b")}
    part.serve("new")
    for name, parameter in part.named_parameters():
        parameter.requires_grad_(name.startswith("own.new."))
    optimizer = torch.optim.SGD([p for p in part.parameters() if p.requires_grad], lr=0.1)
    first = part(rows, Context(modality="new")).x.detach()
    part.train()
    for _ in range(3):
        optimizer.zero_grad()
        part(rows, Context(modality="new")).x.square().sum().backward()
        optimizer.step()
    part.eval()
    assert not torch.allclose(part(rows, Context(modality="new")).x, first)
    for name, expected in before.items():
        assert torch.equal(part(rows, Context(modality=name)).x, expected), name


def test_a_path_goes_through_the_adapters_of_the_modalities_before_it():
    part, rows = small("a", "b", adapters="path", rank=2), Packed.of([torch.randn(5, 4)])
    disturb(part.own)
    first, second = (part(rows, Context(modality=name)).x for name in ("a", "b"))
    disturb(part.own["a"])
    assert not torch.allclose(part(rows, Context(modality="b")).x, second)
    disturb(part.own["b"])
    part_a = part(rows, Context(modality="a")).x
    disturb(part.own["b"])
    assert torch.equal(part(rows, Context(modality="a")).x, part_a) and not torch.allclose(part_a, first)


def test_a_table_in_another_order_is_another_path_and_does_not_load():
    part, other = small("a", "b", adapters="path", rank=2), small("b", "a", adapters="path", rank=2)
    with pytest.raises(RuntimeError, match=r"own\.b"):
        other.load_state_dict(part.state_dict(), strict=True)
