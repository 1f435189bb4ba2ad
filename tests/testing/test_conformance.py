"""The conformance kit lets a sound modality pass and catches each way of breaking a law, by the law's own name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from omniloom.config import load_run
from omniloom.encoders import Encoder, Processor
from omniloom.errors import ConfigError, OmniloomError
from omniloom.media import Series
from omniloom.projectors import Projector
from omniloom.registry import BUILT_IN
from omniloom.sequence import Packed, Shape
from omniloom.testing import ConformanceFailure, check_encoder, check_modality, check_processor, check_projector

DRAW = np.random.default_rng(0)
EXAMPLES = [Series(DRAW.normal(0, 1, (steps, 2)).astype(np.float32)) for steps in (8, 21, 5, 8)]


class Rows(Processor):
    """A sound processor."""

    payload_kind = "series"

    def __init__(self, *, scale: float = 1.0):
        self.scale = scale

    def __call__(self, payload, rng=None):
        noise = 0 if rng is None else torch.randn(payload.values.shape, generator=rng)
        return torch.from_numpy(payload.values) * self.scale + noise

    def shape(self, raw):
        return Shape(len(raw))


class Pairs(Encoder):
    """A sound encoder: every two steps become a row."""

    def __init__(self, *, width: int = 16):
        super().__init__()
        self.width = self.out_dim = width
        self.first, self.norm = nn.Linear(4, width), nn.LayerNorm(width)

    def rows(self, raw):
        filled = nn.functional.pad(raw, (0, 0, 0, len(raw) % 2)).view(-1, 4)
        return self.norm(self.first(filled.to(self.first.weight)))

    def forward(self, raws):
        return Packed.of([self.rows(raw) for raw in raws])

    def out_shape(self, shape):
        return Shape(-(-shape.len // 2))

    def minimal_raw(self):
        return torch.zeros(1, 2)


def modality(processor=Rows, encoder=Pairs, projector="mlp", **row):
    return dict(payload="series", processor=processor, encoder=encoder, projector=projector, **row)


def broken(failure):
    return [result.law for result in failure.value.report.broken]


# -- what passes ----------------------------------------------------------------------------------------------------


def test_a_sound_modality_keeps_every_law():
    report = check_modality(modality(slots={"max": 4, "over": "resample"}), examples=EXAMPLES)
    assert report.is_kept and not report.broken and len(report.results) == 27
    assert report["encoder: declared rows"].seen.startswith("[4, 11, 3, 4] rows")
    assert report["model: plans and runs"].seen == "[4, 4, 3, 4] slots, at most 4"
    assert report["model: gradients reach"].seen == "1,744 numbers in 10 parameters"


def test_the_report_is_a_table_with_a_line_for_every_law():
    report = check_modality(modality(), examples=EXAMPLES, name="pairs")
    lines = str(report).splitlines()
    assert lines[0] == "pairs: 27 laws kept, 0 broken"
    assert [line.split("  ")[0] for line in lines[1:]] == ["kept"] * 27


def test_made_up_payloads_find_the_channels_that_a_part_takes():
    report = check_modality(modality())
    assert report["file: its parts take"].seen == "4 made-up payloads of kind 'series'"


def test_trying_a_dictionary_leaves_the_part_table_and_modules_as_they_were():
    before = {room: dict(parts) for room, parts in BUILT_IN.items()}
    check_modality(modality(), examples=EXAMPLES)
    assert before == BUILT_IN
    assert "omniloom.testing.tried_parts" not in sys.modules


def test_the_kit_leaves_the_random_state_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_modality(modality(), examples=EXAMPLES, seed=9)
    assert torch.equal(torch.rand(2), expected)


def test_a_chain_with_a_zero_gate_at_its_start_is_no_broken_law():
    class Gated(Pairs):
        def __init__(self, *, width: int = 16):
            super().__init__(width=width)
            self.gate = nn.Parameter(torch.zeros(()))

        def rows(self, raw):
            return self.gate * super().rows(raw)

    assert check_modality(modality(encoder=Gated), examples=EXAMPLES).is_kept


def test_dropout_is_no_dependence_on_the_batch():
    class Dropping(Pairs):
        def __init__(self, *, width: int = 16):
            super().__init__(width=width)
            self.drop = nn.Dropout(0.5)

        def rows(self, raw):
            return self.drop(super().rows(raw))

    assert check_encoder(Dropping().eval(), Rows(), EXAMPLES).is_kept


def test_the_parts_keep_weights_modes_and_gradients_through_a_check():
    part = Pairs().train()
    part.norm.eval()
    before = {name: value.clone() for name, value in part.state_dict().items()}
    check_encoder(part, Rows(), EXAMPLES)
    assert all(torch.equal(before[name], value) for name, value in part.state_dict().items())
    assert part.training and not part.norm.training
    assert all(value.grad is None for value in part.parameters())


# -- one way of breaking each law -----------------------------------------------------------------------------------


class Random(Rows):
    def __call__(self, payload, rng=None):
        return super().__call__(payload) + torch.randn(len(payload.values), 2)


class GlobalNoise(Rows):
    def __call__(self, payload, rng=None):
        return super().__call__(payload) + (0 if rng is None else torch.randn(len(payload.values), 2))


class Changing(Rows):
    def __call__(self, payload, rng=None):
        payload.values[0] += 1
        return torch.from_numpy(payload.values.copy())


class Blind(Rows):
    def __call__(self, payload, rng=None):
        return torch.ones(6, 2)


class Forgetful(Rows):
    def __init__(self, *, scale: float = 1.0):
        self.factor = scale

    def __call__(self, payload, rng=None):
        return torch.from_numpy(payload.values) * self.factor


class Undefined(Rows):
    def __call__(self, payload, rng=None):
        return torch.from_numpy(payload.values).log()


@pytest.mark.parametrize(
    ("part", "law", "seen"),
    [
        (Random, "processor: same payload, same bytes", "other bytes the second time"),
        (GlobalNoise, "processor: noise comes from the rng alone", "two generators of one seed"),
        (Changing, "processor: reads the payloads, leaves them as they are", "payload was changed"),
        (Undefined, "processor: reads the payloads, leaves them as they are", "NaN or infinity"),
        (Blind, "processor: its input matters", "one and the same raw tensor"),
        (Forgetful, "processor: options can be read back", "takes 'scale' and does not keep it"),
    ],
)
def test_a_broken_processor_is_caught(part, law, seen):
    payloads = [Series(series.values.copy()) for series in EXAMPLES]
    with pytest.raises(ConformanceFailure) as failure:
        check_processor(part(), payloads)
    assert law in broken(failure) and seen in failure.value.report[law].seen


class WrongCount(Pairs):
    def out_shape(self, shape):
        return Shape(shape.len // 2 + 1)


class WrongWidth(Pairs):
    def __init__(self, *, width: int = 16):
        super().__init__(width=width)
        self.out_dim = width + 1


class InPlace(Pairs):
    def rows(self, raw):
        return super().rows(raw.add_(1))


class Normalised(Pairs):
    def __init__(self, *, width: int = 16):
        super().__init__(width=width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, raws):
        filled = [nn.functional.pad(raw, (0, 0, 0, len(raw) % 2)).view(-1, 4) for raw in raws]
        x = self.norm(self.first(torch.cat(filled).to(self.first.weight)))
        return Packed.of(list(x.split([len(item) for item in filled])))


class Deaf(Pairs):
    def rows(self, raw):
        return super().rows(torch.ones_like(raw))


class Detached(Pairs):
    def rows(self, raw):
        return super().rows(raw).detach()


class Idle(Pairs):
    def __init__(self, *, width: int = 16):
        super().__init__(width=width)
        self.unused = nn.Linear(2, 2)


class Float(Pairs):
    def rows(self, raw):
        return self.norm(nn.functional.pad(raw, (0, 0, 0, len(raw) % 2)).view(-1, 4).float() @ self.first.weight.T)


class Doubled(Pairs):
    def __init__(self, *, width: int = 16):
        super().__init__(width=2 * width)


class Hidden(Pairs):
    def __init__(self, *, width: int = 16):
        super().__init__(width=width)
        self.width = nn.Parameter(torch.zeros(width))


class NoMinimum(Pairs):
    def minimal_raw(self):
        return torch.zeros(2)


@pytest.mark.parametrize(
    ("part", "law", "seen"),
    [
        (WrongCount, "encoder: declared rows are produced rows", "forward gave [4] rows, out_shape() says 5"),
        (WrongWidth, "encoder: declared rows are produced rows", "rows are 16 wide; out_dim says 17"),
        (InPlace, "encoder: declared rows are produced rows", "changed in place"),
        (NoMinimum, "encoder: declared rows are produced rows", "raised"),
        (Normalised, "encoder: an item alone equals the item in a batch", "training mode"),
        (Deaf, "encoder: its input matters", "gave the same rows"),
        (Detached, "encoder: every parameter gets a gradient", "carry no gradient"),
        (Idle, "encoder: every parameter gets a gradient", "unused.weight"),
        (Float, "encoder: runs in bfloat16", "raised RuntimeError"),
        (Doubled, "encoder: options can be read back", "built again, width is 64; expected 32"),
        (Hidden, "encoder: options can be read back", "hides the option"),
    ],
)
def test_a_broken_encoder_is_caught(part, law, seen):
    with pytest.raises(ConformanceFailure) as failure:
        check_encoder(part().eval(), Rows(), EXAMPLES)
    assert law in broken(failure) and seen in failure.value.report[law].seen


class Keep(Projector):
    """A sound projector."""

    def __init__(self, in_dim, out_dim, *, bias: bool = True):
        super().__init__()
        self.in_dim, self.out_dim, self.bias = in_dim, out_dim, bias
        self.map = nn.Linear(in_dim, out_dim, bias=bias)

    def forward(self, packed, context):
        return Packed(self.map(packed.x.to(self.map.weight)), packed.shapes)

    def out_shape(self, shape):
        return shape


class Halving(Keep):
    def out_shape(self, shape):
        return Shape(-(-shape.len // 2))


class Leaking(Keep):
    def forward(self, packed, context):
        return Packed(super().forward(packed, context).x - packed.x.mean(), packed.shapes)


class Cutting(Keep):
    def forward(self, packed, context):
        return super().forward(Packed(packed.x.detach(), packed.shapes), context)


def test_a_sound_projector_keeps_every_law():
    assert len(check_projector(Keep(6, 8)).results) == 5


@pytest.mark.parametrize(
    ("part", "law", "seen"),
    [
        (Halving, "projector: declared rows are produced rows", "out_shape() says [3, 1, 6, 3]"),
        (Leaking, "projector: an item alone equals the item in a batch", "differ by"),
        (Cutting, "projector: gradients reach it and pass through it", "no gradient reaches its input"),
    ],
)
def test_a_broken_projector_is_caught(part, law, seen):
    with pytest.raises(ConformanceFailure) as failure:
        check_projector(part(6, 8))
    assert broken(failure) == [law] and seen in failure.value.report[law].seen


# -- the composed model ---------------------------------------------------------------------------------------------


class Unseeded(Pairs):
    """Fixed numbers that are neither a parameter nor a buffer: lost on saving."""

    def __init__(self, *, width: int = 16):
        super().__init__(width=width)
        self.offset = torch.from_numpy(np.random.default_rng().normal(0, 1, width)).float()

    def rows(self, raw):
        return super().rows(raw) + self.offset.to(self.first.weight)


class Counting(Pairs):
    """Its rows know how many items are in the batch."""

    def forward(self, raws):
        packed = super().forward(raws)
        return Packed(packed.x * torch.linspace(0, len(raws), self.width), packed.shapes)


@pytest.mark.parametrize(
    ("row", "law", "seen"),
    [
        (modality(encoder=Detached), "model: gradients reach its parts and nothing else", "no gradient reaches"),
        (modality(encoder=Deaf), "model: another item gives another answer", "leaves every logit as it was"),
        (modality(encoder=Unseeded), "model: saved and loaded, it is bit-equal", "other logits"),
        (modality(encoder=Float), "model: runs in bfloat16 and in mixed precision", "raised"),
        (
            modality(slots={"max": 1}),
            "model: plans and runs every payload within its slots",
            "the slot budget of 1",
        ),
        (modality(encoder=Normalised), "encoder: an item alone equals the item in a batch", "training mode"),
        (modality(encoder=Counting), "model: alone equals mixed and packed batches", "differ by"),
    ],
)
def test_a_modality_that_breaks_a_law_of_the_model_is_caught(row, law, seen):
    same_size = [EXAMPLES[0], EXAMPLES[3]] if row["encoder"] is Deaf else EXAMPLES
    with pytest.raises(ConformanceFailure) as failure:
        check_modality(row, examples=same_size)
    assert law in broken(failure) and seen in failure.value.report[law].seen


def test_laws_behind_a_broken_one_are_not_reached():
    with pytest.raises(ConformanceFailure) as failure:
        check_modality(modality(slots={"max": 1}), examples=EXAMPLES)
    report = failure.value.report
    assert report["model: answers in text"].state == "unreached"
    assert report["model: answers in text"].seen == "needs: model: plans and runs every payload within its slots"
    assert ", 7 not reached" in str(report).splitlines()[0]


def test_a_failure_says_what_to_do_and_is_an_assertion():
    with pytest.raises(AssertionError, match="what to do: mask padding") as failure:
        check_encoder(Normalised().eval(), Rows(), EXAMPLES)
    assert not isinstance(failure.value, OmniloomError)


def test_a_file_that_does_not_build_is_one_broken_law():
    with pytest.raises(ConformanceFailure) as failure:
        check_modality(modality(projector={"type": "mlp", "layers": 0}), examples=EXAMPLES)
    assert broken(failure) == ["file: its MODALITY builds"]


def test_an_option_that_the_part_does_not_have_is_a_broken_law():
    with pytest.raises(ConformanceFailure, match=r"has no option 'widht'\. Did you mean 'width'"):
        check_modality(modality(encoder={"type": Pairs, "widht": 8}), examples=EXAMPLES)


def test_an_option_that_is_set_and_not_kept_is_caught():
    class Fixed(Pairs):
        def __init__(self, *, width: int = 16):
            super().__init__(width=16)

    with pytest.raises(ConformanceFailure) as failure:
        check_modality(modality(encoder={"type": Fixed, "width": 8}), examples=EXAMPLES)
    assert failure.value.report["encoder: options"].seen == "width was set to 8 and reads back as 16."


def test_examples_must_be_two_different_ones():
    with pytest.raises(ConformanceFailure, match="1 examples, 1 of them different"):
        check_modality(modality(), examples=EXAMPLES[:1])


def test_an_encoder_that_takes_no_made_up_payload_asks_for_examples():
    class Picky(Rows):
        def __call__(self, payload, rng=None):
            raise ValueError("not a heartbeat")

    with pytest.raises(ConformanceFailure, match=r"not a heartbeat(.|\n)*pass `examples`"):
        check_modality(modality(processor=Picky))


def test_an_encoder_that_fails_on_everything_is_told_by_its_own_law_and_the_rest_is_not_reached():
    class Failing(Pairs):
        def forward(self, raws):
            raise ValueError("no such weight")

    with pytest.raises(ConformanceFailure) as failure:
        check_modality(modality(encoder=Failing))
    report = failure.value.report
    assert report["encoder: declared rows"].seen == "raised ValueError: no such weight"
    assert report["file: its parts take"].seen.endswith("none taken by the encoder")
    assert report["encoder: runs in bfloat16"].state == "unreached"


# -- what a modality may be given as --------------------------------------------------------------------------------

FILE = Path(__file__).parents[2] / "examples" / "event_camera" / "events.py"


def test_a_row_of_a_run_is_tried_with_the_runs_shared_components(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "name: r\nbackbone: {id: org/lm}\n"
        "components:\n  shared: {room: encoders, type: series_conv, channels: 2, width: 16, heads: 2}\n"
        "modalities:\n  motion: {payload: series, in: {processor: series, encoder: {component: shared}}}\n"
    )
    run = load_run(tmp_path / "run.yaml").config
    report = check_modality(run.modalities["motion"], name="motion", run=run, base=tmp_path, examples=EXAMPLES)
    assert report.is_kept and report.subject == "motion"


def test_a_row_finds_its_part_file_from_the_base_folder(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE.read_text())
    (tmp_path / "run.yaml").write_text("name: r\nbackbone: {id: org/lm}\nmodalities:\n  tiny: {use: ./tiny.py}\n")
    run = load_run(tmp_path / "run.yaml").config
    rng = np.random.default_rng(0)
    events = [{"xyz": rng.uniform(0, 0.2, (count, 3)), "features": np.ones((count, 1))} for count in (30, 50)]
    assert check_modality(run.modalities["tiny"], name="tiny", base=tmp_path, examples=events).is_kept


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no modality file"):
        check_modality(tmp_path / "nothing.py")
