"""The groups are those of transformers' GroupViT on the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import GroupViTVisionConfig
from transformers.models.groupvit.modeling_groupvit import GroupViTStage

from omniloom.projectors import Context
from omniloom.projectors.groups import Groups
from omniloom.sequence import Packed


def pairs(theirs, ours):
    """(published, own) linear maps and norms of one stage."""
    for their_block, block in zip(theirs.layers, ours.blocks, strict=True):
        yield their_block.layer_norm1, block.attention_norm
        yield from attention(their_block.self_attn, block.attention)
        yield their_block.layer_norm2, block.mlp_norm
        yield from mlp(their_block.mlp, block.mlp)
    if ours.before is not None:
        yield theirs.group_projector[0], ours.before[0]
        yield from mlp(theirs.group_projector[1], ours.before[1])
    assign, own = theirs.downsample, ours.grouping
    yield assign.norm_tokens, own.token_norm
    yield assign.norm_x, own.row_norm
    yield from mlp(assign.mlp_inter, own.mix)
    yield assign.norm_post_tokens, own.mix_norm
    yield from attention(assign.pre_assign_attn.attn, own.look)
    yield assign.pre_assign_attn.norm2, own.look_norm
    yield from mlp(assign.pre_assign_attn.mlp, own.look_mlp)
    yield assign.pre_assign_attn.norm_post, own.look_out
    yield assign.assign.q_proj, own.query
    yield assign.assign.k_proj, own.key
    yield assign.assign.v_proj, own.value
    yield assign.assign.proj, own.out
    yield assign.norm_new_x, own.norm
    yield from mlp(assign.mlp_channels, own.mlp)


def attention(theirs, ours):
    yield theirs.q_proj, ours.query
    yield theirs.k_proj, ours.key
    yield theirs.v_proj, ours.value
    yield theirs.out_proj, ours.out


def mlp(theirs, ours):
    yield theirs.fc1, ours[0]
    yield theirs.fc2, ours[2]


@pytest.fixture
def published():
    """Two stages of GroupViT in evaluation mode, and a part with their weights."""
    torch.manual_seed(0)
    config = GroupViTVisionConfig(hidden_size=16, intermediate_size=64, num_attention_heads=2, hidden_act="gelu")
    theirs = [GroupViTStage(config, 2, 0, 5, 5).eval(), GroupViTStage(config, 1, 5, 3, 3).eval()]
    ours = Groups(16, 16, groups=(5, 3), depths=(2, 1, 0), width=16, heads=2)
    for stage, own in zip(theirs, ours.stages, strict=True):
        torch.nn.init.normal_(stage.group_token)
        own.tokens.data.copy_(stage.group_token[0])
        for source, target in pairs(stage, own):
            torch.nn.init.normal_(source.weight, std=0.5)
            target.weight.data.copy_(source.weight)
            # A bias that cancels in a softmax is not there.
            if target.bias is None:
                torch.nn.init.zeros_(source.bias)
            else:
                target.bias.data.copy_(source.bias)
    ours.first, ours.norm, ours.map = (torch.nn.Identity() for _ in range(3))
    ours.first.weight = ours.stages[0].tokens
    return theirs, ours


@torch.no_grad()
def test_its_groups_are_those_of_groupvit(published):
    theirs, ours = published
    rows = torch.randn(2, 7, 16)
    first, tokens = theirs[0](rows)
    second, _ = theirs[1](first, tokens)
    out = ours(Packed.of(list(rows)), Context())
    torch.testing.assert_close(out.x, second.flatten(0, 1), atol=1e-4, rtol=1e-4)


def test_an_item_of_any_length_becomes_the_last_number_of_groups():
    out = Groups(4, 6, groups=(5, 3), depths=(1, 1, 1), width=8, heads=2)(
        Packed.of([torch.randn(1, 4), torch.randn(30, 4)]), Context()
    )
    assert out.lengths == [3, 3] and out.x.shape == (6, 6)


def test_a_hard_choice_is_one_group_with_the_gradient_of_the_soft_one():
    part = Groups(4, 6, groups=(3,), depths=(0, 0), width=8, heads=2)
    scores = torch.randn(1, 3, 5, requires_grad=True)
    chosen = part.stages[0].grouping._assigned(scores)
    torch.testing.assert_close(chosen.sum(1), torch.ones(1, 5))
    assert sorted(chosen.detach().round(decimals=5).unique().tolist()) == [0.0, 1.0]
    weights = torch.randn(1, 3, 5)
    (chosen * weights).sum().backward()
    soft = scores.detach().requires_grad_()
    (soft.softmax(1) * weights).sum().backward()
    torch.testing.assert_close(scores.grad, soft.grad)


def test_a_soft_choice_is_the_softmax_over_groups():
    part = Groups(4, 6, groups=(3,), depths=(0, 0), width=8, heads=2, hard=False)
    scores = torch.randn(1, 3, 5)
    torch.testing.assert_close(part.stages[0].grouping._assigned(scores), scores.softmax(1))
