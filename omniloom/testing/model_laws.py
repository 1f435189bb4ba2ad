"""The laws of a modality inside a composed model: beside text and a second modality, through the doors a run uses.

The model is a random language model of 40 thousand parameters; the modality's own parts are real. The run is written,
settled, composed, saved and loaded exactly as training does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.checkpoint import load_model, save_model
from omniloom.config import RunConfig
from omniloom.data.pipeline import Pipeline
from omniloom.media import Payload, Series
from omniloom.model import OmniModel, Sampling, compose, generate
from omniloom.sequence import Item, Kind, Plan, Sample, Text, Turn
from omniloom.testing.codec_laws import expect_payload
from omniloom.testing.part_laws import disturbed, expect, expect_close, expect_finite, expect_gradients
from omniloom.testing.payloads import made_payloads
from omniloom.testing.report import Ledger

__all__ = ["BESIDE", "ModelLaws"]

BESIDE: dict[str, Any] = {
    "payload": "series",
    "in": {
        "processor": {"type": "series", "length": 8},
        "encoder": {"type": "series_conv", "channels": 1, "width": 16, "stride": 4, "heads": 2},
        "projector": "linear",
    },
}
"""The second modality of the tried model: two rows of a one-channel series."""

_RUNS = "model: plans and runs every payload within its slots"


@dataclass
class ModelLaws:
    """`config`: the settled run with the modality `name` and `beside`; `folder`: its run folder."""

    config: RunConfig
    folder: Path
    name: str
    beside: str
    payloads: Sequence[Payload]

    def __post_init__(self) -> None:
        self.model = self._composed(self.config)
        self.pipeline = Pipeline(self.model)
        self.row = self.model.rows[self.name]
        series = next(made_payloads("series", channels=(1,), seed=5))
        self.others = [payload for payload in series if isinstance(payload, Series)]

    def prove_input(self, ledger: Ledger) -> None:
        """All laws of a modality that comes in."""
        ledger.prove(
            _RUNS,
            self._runs,
            remedy="raise slots.max, set slots.over: resample, or end the projectors at the model's width.",
        )
        for law, proof, remedy in (
            (
                "model: gradients reach its parts and nothing else",
                self._gradients,
                "keep the rows attached from encoder to projector.",
            ),
            (
                "model: without it, everything is as if it were not there",
                self._without,
                "change nothing outside your parts when they are built.",
            ),
            ("model: alone equals mixed and packed batches", self._alone, "let each item see its own rows only."),
            ("model: another item gives another answer", self._connected, "make the rows depend on the raw tensor."),
            (
                "model: saved and loaded, it is bit-equal",
                self._saved,
                "keep state in parameters or persistent buffers, options in the run file.",
            ),
            (
                "model: runs in bfloat16 and in mixed precision",
                self._bfloat16,
                "let dtype follow the weights: x.to(self.weight).",
            ),
            ("model: answers in text", self._answers, "see the laws above."),
        ):
            ledger.prove(law, proof, remedy=remedy, needs=[_RUNS])

    def prove_codes(self, ledger: Ledger) -> None:
        """All laws of a modality that goes out as codes."""
        law = "model: codes are learned slot by slot, and nothing else is"
        ledger.prove(law, self._learns_codes, remedy="let the layout's length() and place() agree with code_shape().")
        remedy = "decode() any ids; declare a code_shape()."
        ledger.prove("model: answers with a payload when asked to", self._answers_payload, remedy=remedy, needs=[law])
        remedy = "keep state in parameters or persistent buffers, options in the run file."
        ledger.prove("model: codec saved and loaded is bit-equal", self._saved_codec, remedy=remedy, needs=[law])

    # -- input ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _runs(self) -> str:
        path = self.row.input
        assert path is not None
        fitting: list[Payload] = []
        counts: list[int] = []
        for payload in self.payloads:
            rows = path.projected(path.encoded(path.processor(payload, None))).len
            if path.max_slots is not None and rows > path.max_slots and path.over == "refuse":
                continue  # the declared refusal; planning it would raise
            plan = self._plans([self._sample("one", payload)])[0]
            wanted = rows if path.max_slots is None else min(rows, path.max_slots)
            (item,) = plan.items_of(self.name)
            expect(item.length == wanted, f"the plan gives {item.length} slots to {rows} rows, {wanted} were expected.")
            expect_finite(self.model.hidden(plan), "hidden states")
            fitting.append(payload)
            counts.append(item.length)
        budget = "" if path.max_slots is None else f", at most {path.max_slots}"
        expect(bool(fitting), f"no payload fits the slot budget of {path.max_slots}, and longer ones are refused.")
        self.fitting = fitting if len(fitting) > 1 else fitting * 2
        return f"{counts} slots{budget}"

    def _gradients(self) -> str:
        batch = self._batch([self._sample("a", self.fitting[0]), self._mixed("b", self.fitting[1], 0)])
        encoder, chain = self.model.inputs[self.name]
        known = self.model.components()
        globs = [
            name for name in dict.fromkeys((encoder, *chain)) if any(True for _ in self.model.parts[name].parameters())
        ]
        expect(bool(globs), "neither the encoder nor a projector has parameters, so nothing can be trained.")
        trained = [self.model.parts[name] for name in globs]
        with _all_disturbed(trained):
            chosen = self.model.train_only(globs)
            sums = self.model.loss(batch)
            torch.stack([value for value, count in sums.values() if float(count) > 0]).sum().backward()  # type: ignore[no-untyped-call]
            seen = expect_gradients(chosen)
            owned = {id(value) for value in chosen.values()}
            others = [
                f"{component}.{name}"
                for component, values in known.items()
                for name, value in values.items()
                if id(value) not in owned and value.grad is not None
            ]
            expect(not others, f"gradients also reached {', '.join(others[:3])}.")
        self.model.requires_grad_(False)
        self.model.eval()
        return seen

    @torch.no_grad()
    def _without(self) -> str:
        rows = {name: row for name, row in self.config.modalities.items() if name != self.name}
        plain = self._composed(self.config.model_copy(update={"modalities": rows}))
        samples = [self._other("a", 0), self._other("b", 1), Sample("c", _turns([Text("Only text?")]))]
        with_it = self._logits(self.model, samples)
        without = self._logits(plain, samples)
        for got, expected in zip(with_it, without, strict=True):
            base = expected.shape[-1]
            expect(
                torch.equal(got[:, :base], expected),
                "the same text and other media got other logits when this modality was added.",
            )
        return f"{len(samples)} samples, bit-equal logits"

    @torch.no_grad()
    def _alone(self) -> str:
        samples = [self._sample("a", self.fitting[0]), self._mixed("b", self.fitting[1], 0), self._other("c", 1)]
        plans = self._plans(samples)
        alone = [self._of_plan(self.model, plan)[0] for plan in plans]
        worst = 0.0
        together = self._of_plan(self.model, Plan.stack(plans))
        for one, many in zip(alone, together, strict=True):
            worst = max(worst, expect_close(many, one, "logits alone and in a mixed batch"))
        if self.model.backbone.is_maskable:
            packed = self._of_plan(self.model, Plan.join([plans]))
            worst = max(worst, expect_close(packed[0], torch.cat(alone), "logits alone and packed in one row"))
        return f"largest difference {worst:.1g}"

    @torch.no_grad()
    def _connected(self) -> str:
        encoder, chain = self.model.inputs[self.name]
        differences = []
        with _all_disturbed([self.model.parts[name] for name in dict.fromkeys((encoder, *chain))]):
            first, *others = (
                self._of_plan(self.model, plan)[0][-1]
                for plan in self._plans([self._sample("a", p) for p in self.fitting])
            )
            differences = [float((other - first).abs().max()) for other in others]
        expect(max(differences) > 0, "exchanging the items of two samples leaves every logit as it was.")
        return f"logits move by up to {max(differences):.2g}"

    @torch.no_grad()
    def _saved(self) -> str:
        samples = [self._sample("a", self.fitting[0]), self._mixed("b", self.fitting[1], 0)]
        loaded = self._reloaded()
        for got, expected in zip(self._logits(loaded, samples), self._logits(self.model, samples), strict=True):
            expect(torch.equal(got, expected), "the loaded model gives other logits.")
        size = sum(path.stat().st_size for path in (self.folder / "components").rglob("*.safetensors"))
        return f"bit-equal; {size / 1e6:.1f} MB"

    @torch.no_grad()
    def _bfloat16(self) -> str:
        half = self.config.backbone.model_copy(update={"dtype": "bfloat16"})
        model = self._composed(self.config.model_copy(update={"backbone": half}))
        samples = [self._sample("a", self.fitting[0]), self._mixed("b", self.fitting[1], 0)]
        for what, tried in (
            ("float32 parts on a bfloat16 language model", model),
            ("bfloat16", model.to(torch.bfloat16)),
        ):
            for logits in self._logits(tried, samples):
                expect_finite(logits, f"logits of {what}")
        return "finite logits"

    def _answers(self) -> str:
        plans = self._plans([self._sample("a", payload).prompt() for payload in self.fitting[:2]], ask=True)
        replies = generate(self.model, plans, Sampling(max_new=3))
        expect(all(reply.ids for reply in replies), "no token was said.")
        return f"{sum(len(reply.ids) for reply in replies)} tokens said"

    # -- output -----------------------------------------------------------------------------------------------------

    def _learns_codes(self) -> str:
        sample = self._drawn("a", self.payloads[0])
        plan = self._plans([sample])[0]
        (item,) = plan.items_of(self.name, "out")
        path = self.row.output
        assert path is not None
        code = path.codec.encode(self.payloads[0])
        expect(
            item.length == path.layout.length(code.shape) + 2,
            f"{item.length} slots for {path.layout.length(code.shape)} codes and 2 borders.",
        )
        self.model.train_only(["vocab"])
        value, count = self.model.loss(plan)["codes"]
        value.backward()  # type: ignore[no-untyped-call]
        expect(int(count) == item.length, f"{int(count)} of {item.length} slots of the item bear loss.")
        gradients = [parameter.grad for parameter in self.model.parts["vocab"].parameters()]
        expect(
            all(g is not None and bool(g.any()) for g in gradients), "no gradient reaches the rows of the vocabulary."
        )
        self.model.zero_grad(set_to_none=True)
        self.model.requires_grad_(False)
        return f"{item.length} slots, begin and end included"

    def _answers_payload(self) -> str:
        path = self.row.output
        assert path is not None
        plans = self._plans([Sample("a", _turns([Text("Make one.")]))], ask=True)
        slots = path.layout.length(path.codec.code_shape()) + 2
        sampling = Sampling(max_new=slots, outputs=frozenset({self.name}), required=self.name)
        (reply,) = generate(self.model, plans, sampling, batch=1)
        items = [part for part in reply.parts if isinstance(part, Item)]
        expect(bool(items), f"asked for {self.name!r}, the reply holds no item.")
        expect_payload(items[0].payload, self.row.payload_kind)
        return f"a payload of kind {self.row.payload_kind!r} from {slots} slots"

    def _saved_codec(self) -> str:
        loaded = self._reloaded()
        for payload in self.payloads:
            mine, theirs = (model.rows[self.name].output.codec.encode(payload).books for model in (self.model, loaded))  # type: ignore[union-attr]
            expect(
                all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)), "the loaded codec gives other codes."
            )
        return "bit-equal codes"

    # -- samples and models -----------------------------------------------------------------------------------------

    def _sample(self, name: str, payload: Payload) -> Sample:
        return Sample(name, _turns([Item(self.name, payload), Text("What is it?")], "this"))

    def _other(self, name: str, index: int) -> Sample:
        return Sample(name, _turns([Text("And this one?"), Item(self.beside, self.others[index])], "that"))

    def _mixed(self, name: str, payload: Payload, index: int) -> Sample:
        parts: list[Text | Item] = [
            Text("First"),
            Item(self.name, payload),
            Text("then"),
            Item(self.beside, self.others[index]),
        ]
        return Sample(name, _turns(parts, "both"))

    def _drawn(self, name: str, payload: Payload) -> Sample:
        return Sample(name, (Turn("user", (Text("Make one."),)), Turn("assistant", (Item(self.name, payload),))))

    def _composed(self, config: RunConfig) -> OmniModel:
        return compose(config, base=self.folder)

    def _reloaded(self) -> OmniModel:
        save_model(self.model, self.config, self.folder, trained=self.model.parts)
        return load_model(self.folder, allow_code=True)[0]

    def _plans(self, samples: Sequence[Sample], *, ask: bool = False, model: OmniModel | None = None) -> list[Plan]:
        pipeline = self.pipeline if model is None else Pipeline(model)
        return pipeline.plans([pipeline.prepare(sample) for sample in samples], ask=ask)

    def _batch(self, samples: Sequence[Sample]) -> Plan:
        return Plan.stack(self._plans(samples))

    def _logits(self, model: OmniModel, samples: Sequence[Sample]) -> list[Tensor]:
        return self._of_plan(model, Plan.stack(self._plans(samples, model=model)))

    @staticmethod
    def _of_plan(model: OmniModel, plan: Plan) -> list[Tensor]:
        """(L, V) logits of the real slots of every row."""
        hidden = model.hidden(plan)
        real = plan.kind != int(Kind.PAD)
        return [model.logits(row[mask]) for row, mask in zip(hidden, real, strict=True)]


def _turns(parts: Sequence[Text | Item], answer: str | None = None) -> tuple[Turn, ...]:
    asked = Turn("user", tuple(parts))
    return (asked,) if answer is None else (asked, Turn("assistant", (Text(answer),)))


@contextmanager
def _all_disturbed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """`disturbed` for several modules at once."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(disturbed(module, train=True))
        yield
