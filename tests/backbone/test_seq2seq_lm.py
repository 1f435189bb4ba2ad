"""Stock encoder-decoders of transformers behind a plan: their own logits, loss and greedy text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from omniloom.backbone.base import CacheView
from omniloom.backbone.seq2seq_lm import Seq2SeqLM
from omniloom.errors import ConfigError, PlanError
from omniloom.interaction.lora import LoRA
from omniloom.model import OmniModel, Sampling, generate
from omniloom.planner import Planner, Template
from omniloom.sequence import IGNORE, Plan, Sample, Text, Turn, Vocabulary
from omniloom.testing.doubles import tiny_encoder_decoder, tiny_tokenizer

_T5 = {
    "vocab_size": 259, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
}  # fmt: skip
_BART = {
    "vocab_size": 259, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
    "init_std": 0.3, "scale_embedding": True,
}  # fmt: skip
# Name -> (type, options, whether its head is the embeddings).
MODELS = {
    "t5": ("t5", {**_T5, "feed_forward_proj": "relu"}, True),
    "t5, own head": ("t5", {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, False),
    "mt5": ("mt5", _T5, False),
    "umt5": ("umt5", _T5, True),
    "bart": ("bart", _BART, True),
}
TALKS = [("hi", "yes"), ("hello there, you", "no, not at all"), ("abc de", "x"), ("x", "well then")]


def saved(folder, name: str):
    kind, options, is_tied = MODELS[name]
    config = transformers.AutoConfig.for_model(kind, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
        if kind == "t5" and is_tied:
            for value in model.decoder.block.parameters():
                value.data *= 3  # or the head says what the decoder has just read
        if not is_tied:
            model.lm_head.weight = nn.Parameter(torch.randn(259, 32))
        if kind == "bart":
            model.final_logits_bias.normal_()
            model.generation_config.forced_bos_token_id = 1
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def model_of(backbone: Seq2SeqLM, adapters=None) -> OmniModel:
    tokenizer = tiny_tokenizer()
    template = Template.of(tokenizer, kind="plain", stop=backbone.stop_ids, is_answer_bare=True)
    vocabulary = Vocabulary.of(backbone.vocab_size, {})
    planner = Planner(tokenizer, template, {}, vocabulary, decoder_start=backbone.decoder_start)
    return OmniModel(backbone, planner, {}, {}, adapters or {}).eval()


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """(transformers' model, ours over the same folder)."""
    folder = saved(tmp_path_factory.mktemp("lm"), request.param)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs, model_of(Seq2SeqLM(id=str(folder)))


def answered(model: OmniModel) -> list[Plan]:
    return [
        model.planner.plan(Sample(str(n), (Turn("user", (Text(asked),)), Turn("assistant", (Text(said),)))))
        for n, (asked, said) in enumerate(TALKS)
    ]


def prompts(model: OmniModel) -> list[Plan]:
    return [
        model.planner.plan(Sample(str(n), (Turn("user", (Text(asked),)),)), ask=True)
        for n, (asked, _) in enumerate(TALKS)
    ]


def padded(rows: list[torch.Tensor], fill: int = 0) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def sides_of(plan: Plan, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(read, said) values of a plan of one row."""
    return values[0, plan.stream[0] == 1], values[0, plan.stream[0] == 0]


def by_transformers(theirs, plans: list[Plan]):
    """Their own output for the plans as a right-padded batch, from embeddings."""
    read = [sides_of(plan, plan.ids)[0] for plan in plans]
    said = [sides_of(plan, plan.ids)[1] for plan in plans]
    return theirs(
        inputs_embeds=theirs.get_input_embeddings()(padded(read)),
        attention_mask=padded([torch.ones_like(row) for row in read]),
        decoder_input_ids=padded(said),
        labels=padded([sides_of(plan, plan.label)[1] for plan in plans], IGNORE),
    )


@torch.no_grad()
def test_logits_and_loss_of_a_mixed_padded_batch_are_those_of_transformers(pair):
    theirs, model = pair
    plans = answered(model)
    expected, batch = by_transformers(theirs, plans), Plan.stack(plans)
    logits = model.logits(model.hidden(batch))
    for row, plan in enumerate(plans):
        ours = logits[row, : plan.shape[1]][plan.stream[0] == 0]
        torch.testing.assert_close(ours, expected.logits[row, : len(ours)], atol=1e-5, rtol=1e-5)
    total, count = model.loss(batch)["text"]
    assert int(count) == sum(len(said) + 1 for _, said in TALKS)
    torch.testing.assert_close(total / count, expected.loss, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_slots_of_the_encoder_hold_its_states_and_padding_holds_nothing(pair):
    theirs, model = pair
    batch = Plan.stack(answered(model))
    out = model.backbone(model.embed(batch), batch, taps=(0, 1, 2))
    row = int(batch.lengths.argmin())
    read = (batch.stream[row] == 1) & ~batch.is_padding[row]
    embeds = theirs.get_input_embeddings()(batch.ids[row, read])[None]
    encoded = theirs.get_encoder()(inputs_embeds=embeds, output_hidden_states=True)
    torch.testing.assert_close(out.hidden[row, read], encoded.last_hidden_state[0], atol=1e-5, rtol=1e-5)
    for layer in (0, 1):
        torch.testing.assert_close(out.taps[layer][row, read], encoded.hidden_states[layer][0], atol=1e-5, rtol=1e-5)
    assert not out.hidden[batch.is_padding].any() and bool(batch.is_padding.any())
    with pytest.raises(ConfigError, match="tap 3 is asked for, but one side of the language model has 2"):
        model.backbone(model.embed(batch), batch, taps=(3,))


@torch.no_grad()
def test_packed_documents_do_not_meet_or_are_refused(pair):
    _, model = pair
    plans = answered(model)
    packed = Plan.pack(plans, 130)
    assert packed.is_packed and packed.shape[0] == 2
    if not model.backbone.is_maskable:
        with pytest.raises(ConfigError, match="cannot keep packed documents apart"):
            model.hidden(packed)
        return
    hidden = model.hidden(packed)
    for index, name in enumerate(packed.samples):
        alone = model.hidden(plans[int(name)])[0]
        torch.testing.assert_close(hidden[packed.document == index], alone, atol=5e-5, rtol=1e-4)


@torch.no_grad()
def test_packed_documents_do_not_meet_in_eager_attention(tmp_path):
    folder = saved(tmp_path, "t5")
    model = model_of(Seq2SeqLM(id=str(folder)))
    model.backbone.lm.set_attn_implementation("eager")
    plans = answered(model)
    packed = Plan.pack(plans, 130)
    hidden = model.hidden(packed)
    for index, name in enumerate(packed.samples):
        alone = model.hidden(plans[int(name)])[0]
        torch.testing.assert_close(hidden[packed.document == index], alone, atol=5e-5, rtol=1e-4)


def said_by(theirs, plan: Plan, start: int) -> list[int]:
    read = sides_of(plan, plan.ids)[0][None]
    ids = theirs.generate(read, attention_mask=torch.ones_like(read), max_new_tokens=11, do_sample=False, num_beams=1)
    return ids[0, start:].tolist()


def test_greedy_text_is_that_of_generate_alone_and_in_a_padded_batch(pair):
    theirs, model = pair
    plans, start = prompts(model), len(model.backbone.decoder_start)
    expected = [said_by(theirs, plan, start) for plan in plans]
    sampling = Sampling(max_new=12 - start)
    assert len({tuple(ids) for ids in expected}) > 1
    assert [list(generate(model, [plan], sampling)[0].ids) for plan in plans] == expected
    assert [list(reply.ids) for reply in generate(model, plans, sampling)] == expected


@torch.no_grad()
def test_each_step_gives_the_logits_of_the_full_forward(pair):
    theirs, model = pair
    plans, tail = prompts(model), [20, 30, 40, 50]
    batch, cache = Plan.stack(plans), model.backbone.new_cache()
    model.hidden(batch, cache=cache)
    view = CacheView(cache, ~batch.is_padding, batch.next_position)
    steps = [
        model.logits(model.backbone.step(model.embed_ids(torch.full((len(plans), 1), token)), view)) for token in tail
    ]
    assert view.valid.shape[1] == batch.shape[1] + len(tail)
    for row, plan in enumerate(plans):
        read, said = sides_of(plan, plan.ids)
        whole = theirs(input_ids=read[None], decoder_input_ids=torch.cat([said, torch.tensor(tail)])[None]).logits
        ours = torch.stack([logits[row] for logits in steps])
        torch.testing.assert_close(ours, whole[0, len(said) :], atol=1e-4, rtol=1e-5)


def test_a_start_that_generate_forces_behind_the_first_one_is_planned(pair):
    theirs, model = pair
    forced = theirs.generation_config.forced_bos_token_id
    expected = [theirs.config.decoder_start_token_id, *([] if forced is None else [forced])]
    plan = prompts(model)[0]
    assert sides_of(plan, plan.ids)[1].tolist() == expected == list(model.backbone.decoder_start)


# -- adapters -------------------------------------------------------------------------------------------------------


def test_a_routed_adapter_at_every_map_acts_on_its_own_slots_of_both_sides(tmp_path):
    """Text is route 0; an adapter of another route must change nothing, wherever the two sides have as many slots."""
    folder = tiny_encoder_decoder(tmp_path)
    plain, everywhere = (
        model_of(Seq2SeqLM(id=str(folder)), adapters)
        for adapters in ({}, {"a": LoRA(rank=2, targets=["*.q", "*.k", "*.v", "*.o", "*.wo"], routes=["text"])})
    )
    with torch.no_grad():
        for value in everywhere.components()["a"].values():
            value.normal_(0, 0.3)
    plan = answered(plain)[0]
    elsewhere = replace(plan, route=torch.ones_like(plan.route))
    assert torch.equal(everywhere.hidden(elsewhere), plain.hidden(plan))
    assert not torch.isclose(everywhere.hidden(plan), plain.hidden(plan)).any(-1).all()
    # A slot of the encoder that is routed reaches the decoder through the keys and values of cross-attention alone,
    # where only those maps have the adapter.
    cross = model_of(
        Seq2SeqLM(id=str(folder)), {"a": LoRA(rank=2, targets=["*.EncDecAttention.[kv]"], routes=["text"])}
    )
    with torch.no_grad():
        for value in cross.components()["a"].values():
            value.normal_(0, 0.3)
    said = plan.stream == 0
    only_said, only_read = (replace(plan, route=torch.where(said == is_said, 0, 1).long()) for is_said in (True, False))
    assert torch.equal(cross.hidden(only_said), plain.hidden(plan))
    differs = (cross.hidden(only_read) != plain.hidden(plan)).any(-1)
    assert torch.equal(differs, said)


def test_gradient_checkpointing_changes_no_gradient_of_routed_adapters(tmp_path):
    folder = tiny_encoder_decoder(tmp_path)
    grads, calls = [], []
    for on in (False, True):
        adapters = {"a": LoRA(rank=2, targets=["*.q", "*.k", "*.v"], routes=["text"])}
        model = model_of(Seq2SeqLM(id=str(folder), gradient_checkpointing=on), adapters)
        torch.manual_seed(3)
        with torch.no_grad():
            for value in model.components()["a"].values():
                value.normal_(0, 0.3)
        chosen, count = model.train_only(["a"]), []
        block = model.backbone.lm.decoder.block[0].layer[-1]
        block.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        plan = Plan.stack(answered(model))
        half = replace(plan, route=(torch.arange(plan.shape[1]) % 2).expand(plan.shape))
        model.loss(half)["text"][0].backward()
        grads.append({name: value.grad for name, value in chosen.items()})
        calls.append(len(count))
    assert calls == [1, 2] and all(bool(value.any()) for value in grads[0].values())
    for name, value in grads[0].items():
        torch.testing.assert_close(grads[1][name], value, atol=1e-5, rtol=1e-4)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_plan_for_one_stream_is_refused(pair):
    _, model = pair
    base = model.planner
    planner = Planner(base.tokenizer, base.template, {}, base.vocabulary)
    with pytest.raises(PlanError, match="the encoder has no slot of sample 's' to read"):
        model.hidden(planner.plan(Sample("s", (Turn("user", (Text("q"),)),))))


def test_rows_whose_answers_have_begun_differently_are_not_decoded_together(pair):
    _, model = pair
    with pytest.raises(ConfigError, match=r"go on behind \[\d+, \d+.*ask=True"):
        model.hidden(Plan.stack(answered(model)), cache=model.backbone.new_cache())


def test_an_answer_whose_slots_see_each_other_is_refused(pair):
    _, model = pair
    plan = answered(model)[0]
    with pytest.raises(ConfigError, match="a decoder reads in order"):
        model.hidden(replace(plan, span=torch.where(plan.stream == 0, 0, -1)))


def test_what_narrows_an_encoder_is_refused(pair):
    _, model = pair
    with pytest.raises(ConfigError, match="reads in both directions"):
        model.backbone.hook_visible(0, "a", nn.Identity(), model.context)
    with pytest.raises(ConfigError, match="a decoder reads what the encoder made of each"):
        model.backbone.hook_kept(1, "a", nn.Identity(), model.context)


def test_an_unknown_type_is_refused_with_those_that_are_known(tmp_path):
    config = transformers.AutoConfig.for_model("pegasus", **_BART)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="of type 'pegasus'; encoder-decoders known here: t5, mt5, umt5, bart"):
        Seq2SeqLM(id=str(tmp_path))


def test_the_encoder_decoder_inside_a_whole_multimodal_model_is_taken(tmp_path):
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 8, "patch_size": 4}  # fmt: skip
    reader = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "encoder_hidden_size": 16, "vocab_size": 20}  # fmt: skip
    config = transformers.Blip2Config(
        vision_config=vision, qformer_config=reader, text_config={**_T5, "model_type": "t5"}, num_query_tokens=2
    )
    torch.manual_seed(0)
    whole = transformers.Blip2ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    model = model_of(Seq2SeqLM(id=str(tmp_path)))
    assert type(model.backbone.lm) is transformers.T5ForConditionalGeneration
    plans = answered(model)
    with torch.no_grad():
        expected = by_transformers(whole.language_model, plans).loss
        total, count = model.loss(Plan.stack(plans))["text"]
    torch.testing.assert_close(total / count, expected, atol=1e-5, rtol=1e-5)
