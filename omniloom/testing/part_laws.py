"""The laws of single parts: processor, encoder, projector. What they share with codecs is here too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from omniloom.encoders import Encoder, Processor
from omniloom.media import Payload
from omniloom.projectors import Context, Projector
from omniloom.registry import schema
from omniloom.sequence import Bundle, Packed, Raw, Shape, same_raw
from omniloom.testing.raw_tensors import changed_raw, copied_raw, mapped_rows, shape_text, tensors_of
from omniloom.testing.report import LawBrokenError, Ledger

__all__ = [
    "ROWS_LAW",
    "TOLERANCE",
    "disturbed",
    "encoder_laws",
    "expect",
    "expect_close",
    "expect_finite",
    "expect_gradients",
    "made_rows",
    "option_law",
    "processor_laws",
    "projector_laws",
]

TOLERANCE = 1e-5
"""How far an item alone may lie from the same item in a batch, in float32, relative to the largest value."""

ROWS_LAW = "encoder: declared rows are produced rows"


# -- what every proof uses ------------------------------------------------------------------------------------------


def expect(is_so: bool, message: str) -> None:
    """Break the law unless it is so."""
    if not is_so:
        raise LawBrokenError(message)


def expect_finite(x: Tensor, what: str) -> None:
    """Break the law on NaN or infinity."""
    expect(
        not x.is_floating_point() or bool(x.isfinite().all()), f"{what} hold NaN or infinity; expected finite numbers."
    )


def expect_close(got: Tensor, expected: Tensor, what: str) -> float:
    """Break the law unless two tensors agree to `TOLERANCE`; returns the largest difference, relative."""
    expect(got.shape == expected.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}.")
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    distance = float((got - expected).abs().max()) / scale if expected.numel() else 0.0
    expect(distance <= TOLERANCE, f"{what} differ by {distance:.2g}; expected at most {TOLERANCE:g}.")
    return distance


def expect_gradients(parameters: Mapping[str, nn.Parameter]) -> str:
    """Break the law where a parameter has no gradient after backward, or one that is zero everywhere."""
    detached = [name for name, value in parameters.items() if value.grad is None]
    expect(
        not detached, f"no gradient reaches {_listed(detached)}; expected one for each of {len(parameters)} parameters."
    )
    zero = [name for name, value in parameters.items() if value.grad is not None and not bool(value.grad.any())]
    expect(not zero, f"the gradient of {_listed(zero)} is zero everywhere; nothing it does changes the loss.")
    for name, value in parameters.items():
        expect_finite(value.grad if value.grad is not None else value, f"gradients of {name}")
    return f"{sum(value.numel() for value in parameters.values()):,} numbers in {len(parameters)} parameters"


@contextmanager
def disturbed(module: nn.Module, *, train: bool = False) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters of a module, all trainable and moved by a little noise; restored afterwards.

    Without the noise a branch that starts behind a zero gate would look disconnected. `train` runs it in training
    mode with dropout off: what then still depends on the batch does so in real training.
    """
    state = {name: value.detach().clone() for name, value in module.state_dict(keep_vars=True).items()}
    flags = {name: value.requires_grad for name, value in module.named_parameters()}
    modes = [(inner, inner.training) for inner in module.modules()]
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            value.requires_grad_(value.is_floating_point())
            value.add_(0.02 * torch.randn(value.shape, generator=draw).to(value))
    module.train(train)
    for inner in module.modules():
        if isinstance(inner, nn.modules.dropout._DropoutNd):
            inner.eval()
    try:
        yield dict(module.named_parameters())
    finally:
        with torch.no_grad():
            for name, value in module.state_dict(keep_vars=True).items():
                value.copy_(state[name])
        for name, value in module.named_parameters():
            value.grad = None
            value.requires_grad_(flags[name])
        for inner, mode in modes:
            inner.training = mode


def option_law(
    ledger: Ledger,
    law: str,
    part: Any,
    *wired: Any,
    given: Mapping[str, Any] | None = None,
    serve: Sequence[str] = (),
) -> None:
    """Every option can be read back under its own name, and builds an equal part.

    `given`: options as the file sets them. `serve`: modalities that the part was told it serves.
    """

    def proof() -> str:
        options: dict[str, Any] = {}
        for name in schema(type(part)):
            expect(hasattr(part, name), f"{type(part).__name__} takes {name!r} and does not keep it.")
            options[name] = getattr(part, name)
            kind = type(options[name]).__name__
            expect(
                not isinstance(options[name], nn.Module | Tensor),
                f"{type(part).__name__}.{name} is a {kind}, which hides the option of that name.",
            )
        for name, value in (given or {}).items():
            expect(
                _same(options.get(name), value), f"{name} was set to {value!r} and reads back as {options.get(name)!r}."
            )
        again = type(part)(*wired, **options)
        for modality in serve:
            again.serve(modality)
        for name, value in options.items():
            expect(
                _same(getattr(again, name), value),
                f"built again, {name} is {getattr(again, name)!r}; expected {value!r}.",
            )
        if isinstance(part, nn.Module):
            shapes, copied = ({k: v.shape for k, v in m.state_dict().items()} for m in (part, again))
            expect(shapes == copied, "built again from its options, the part has parameters of other names or shapes.")
            again.load_state_dict(part.state_dict(), strict=True)
        return ", ".join(f"{name}={value!r}" for name, value in options.items())[:60] or "no options"

    ledger.prove(
        law, proof, remedy="store each parameter after the star under its own name, unchanged: self.NAME = NAME."
    )


def _same(a: Any, b: Any) -> bool:
    as_list = [list(value) if isinstance(value, list | tuple) else value for value in (a, b)]
    return bool(as_list[0] == as_list[1])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _in_bfloat16(module: nn.Module, run: Callable[[Any], Tensor]) -> str:
    rows = run(copy.deepcopy(module).to(torch.bfloat16))
    expect_finite(rows, "bfloat16 rows")
    return f"rows are {str(rows.dtype).removeprefix('torch.')}"


# -- processor ------------------------------------------------------------------------------------------------------


def processor_laws(ledger: Ledger, processor: Processor, payloads: Sequence[Payload], **options: Any) -> None:
    """Same payload, same bytes; noise from its seed alone; payloads left as they are."""
    raws: list[Raw] = []

    def runs() -> str:
        for payload in payloads:
            before = payload.digest()
            raw = processor(payload, None)
            expect(
                isinstance(raw, Tensor | Bundle), f"it returned {type(raw).__name__}; expected a tensor or a Bundle."
            )
            for value in tensors_of(raw):
                place = value.device
                expect(place.type == "cpu", f"the raw tensor is on {place}; expected the CPU: it runs in workers.")
                expect_finite(value, "raw tensors")
            expect(payload.digest() == before, "the payload was changed; it may be cached and read again.")
            expect(processor.shape(raw).len >= 1, "shape() says no rows.")
            raws.append(raw)
        return ", ".join(shape_text(raw) for raw in raws)[:100]

    def repeats() -> str:
        for index, payload in enumerate(payloads):
            again = processor(payload, None)
            expect(same_raw(again, raws[index]), f"payload {index} gave other bytes the second time, without an rng.")
        return f"{len(payloads)} payloads twice"

    def seeded() -> str:
        different = 0
        for index, payload in enumerate(payloads):
            one, two = (processor(payload, torch.Generator().manual_seed(7)) for _ in range(2))
            expect(same_raw(one, two), f"payload {index}: two generators of one seed gave different bytes.")
            different += not same_raw(one, raws[index])
        return "augments" if different else "does not augment"

    def reads() -> str:
        expect(
            any(not same_raw(raw, raws[0]) for raw in raws[1:]),
            f"{len(raws)} payloads gave one and the same raw tensor.",
        )
        return "payloads differ, raw tensors differ"

    runs_law = "processor: reads the payloads, leaves them as they are"
    option_law(ledger, "processor: options can be read back", processor, **options)
    ledger.prove(runs_law, runs, remedy="return a finite CPU tensor of the payload's kind; copy before you change.")
    remedy = "take all randomness from `rng`; without one use none."
    ledger.prove("processor: same payload, same bytes", repeats, remedy=remedy, needs=[runs_law])
    ledger.prove("processor: noise comes from the rng alone", seeded, remedy=remedy, needs=[runs_law])
    remedy = "use the payload's contents, or give examples that differ."
    ledger.prove("processor: its input matters", reads, remedy=remedy, needs=[runs_law])


# -- encoder --------------------------------------------------------------------------------------------------------


def encoder_laws(
    ledger: Ledger, encoder: Encoder, processor: Processor, payloads: Sequence[Payload], **options: Any
) -> None:
    """Declared rows are produced rows; an item's rows are its own; gradients flow; bfloat16 runs."""
    raws: list[Raw] = []
    rows_law = ROWS_LAW

    @torch.no_grad()
    def rows() -> str:
        raws.extend(processor(payload, None) for payload in payloads)
        noisy = [processor(payload, torch.Generator().manual_seed(seed)) for seed, payload in enumerate(payloads)]
        counts = []
        for index, raw in enumerate([*raws, *noisy, encoder.minimal_raw()]):
            what = f"payload {index % len(raws)}" if index < 2 * len(raws) else "minimal_raw()"
            before = copied_raw(raw)
            packed = encoder([raw])
            expect(same_raw(raw, before), f"{what}: the raw tensor was changed in place; it is kept and used again.")
            if index < 2 * len(raws):
                declared = encoder.out_shape(processor.shape(raw)).len
                got = packed.lengths
                expect(
                    got == [declared],
                    f"{what}, raw {shape_text(raw)}: forward gave {got} rows, out_shape() says {declared}.",
                )
                counts.append(declared)
            expect(
                packed.x.shape[1] == encoder.out_dim,
                f"rows are {packed.x.shape[1]} wide; out_dim says {encoder.out_dim}.",
            )
            place = tensors_of(raw)[0].device
            expect(packed.x.device == place, f"rows are on {packed.x.device}, the raw tensor on {place}.")
            expect_finite(packed.x, f"rows of {what}")
            taps = {layer: tuple(rows.shape) for layer, rows in packed.taps.items()}
            declared_taps = {layer: (len(packed.x), width) for layer, width in encoder.tap_dims.items()}
            expect(taps == declared_taps, f"taps are {taps}; the rows and tap_dims say {declared_taps}.")
            wide = None if packed.pooled is None else packed.pooled.shape[-1]
            expect(wide == encoder.pooled_dim, f"pooled vectors are {wide} wide; pooled_dim is {encoder.pooled_dim}.")
        return f"{counts[: len(raws)]} rows of width {encoder.out_dim}"

    @torch.no_grad()
    def alone() -> str:
        worst = 0.0
        for train in (False, True):
            with disturbed(encoder, train=train):
                packed = encoder(raws)
                expect(len(packed) == len(raws), f"{len(raws)} items gave {len(packed)} shapes.")
                together = [row.clone() for row in packed.items()]
                for index, raw in enumerate(raws):
                    mode = "training" if train else "evaluation"
                    what = f"rows of payload {index}, alone and in a batch ({mode} mode)"
                    worst = max(worst, expect_close(encoder([raw]).x, together[index], what))
        return f"largest difference {worst:.1g}"

    @torch.no_grad()
    def reads() -> str:
        with disturbed(encoder):
            for raw in raws:
                other = changed_raw(raw)
                one, two = encoder([raw]).x, encoder([other]).x
                expect(
                    one.shape != two.shape or not torch.equal(one, two),
                    "another raw tensor of the same shape gave the same rows.",
                )
        return "changed raw tensors change the rows"

    def gradients() -> str:
        with disturbed(encoder, train=True) as parameters:
            if not parameters:
                return "no parameters"
            out = encoder(raws)
            expect(out.x.requires_grad, f"rows carry no gradient; expected one for {len(parameters)} parameters.")
            given = [out.x, *out.taps.values(), *([] if out.pooled is None else [out.pooled])]
            torch.stack([_scalar(rows) for rows in given]).sum().backward()  # type: ignore[no-untyped-call]
            return expect_gradients(parameters)

    option_law(ledger, "encoder: options can be read back", encoder, **options)
    remedy = "compute the same number in forward() and out_shape(); set self.out_dim to the width of the rows. "
    remedy += "If it needs other media than the made-up ones, pass `examples`."
    ledger.prove(rows_law, rows, remedy=remedy)
    remedy = "mask padding after every layer, and use no statistics over the batch (LayerNorm, not BatchNorm)."
    ledger.prove("encoder: an item alone equals the item in a batch", alone, remedy=remedy, needs=[rows_law])
    ledger.prove("encoder: its input matters", reads, remedy="use the raw tensor in forward().", needs=[rows_law])
    remedy = "leave no detach() or no_grad() inside, and no parameter that forward() does not use."
    ledger.prove("encoder: every parameter gets a gradient", gradients, remedy=remedy, needs=[rows_law])
    remedy = "cast inputs to the weights' dtype: raw.to(self.weight)."
    with torch.no_grad():
        ledger.prove(
            "encoder: runs in bfloat16",
            lambda: _in_bfloat16(encoder, lambda m: m(raws).x),
            remedy=remedy,
            needs=[rows_law],
        )


def _scalar(x: Tensor) -> Tensor:
    weights = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(2)).to(x)
    return (x * weights).square().sum()


# -- projector ------------------------------------------------------------------------------------------------------


def projector_laws(
    ledger: Ledger, projector: Projector, packed: Packed, context: Context, *, label: str = "projector", **options: Any
) -> bool:
    """Declared rows are produced rows; an item's rows are its own; gradients flow through and into it.

    Returns whether it produces the rows it declares.
    """
    rows_law = f"{label}: declared rows are produced rows"

    def rows() -> str:
        out = projector(packed, context)
        # Only a late part itself knows how many rows an item becomes.
        declared = out.lengths if projector.is_late else [projector.out_shape(shape).len for shape in packed.shapes]
        expect(out.lengths == declared, f"forward gave {out.lengths} rows, out_shape() says {declared}.")
        expect(
            out.x.shape[1] == projector.out_dim, f"rows are {out.x.shape[1]} wide; out_dim says {projector.out_dim}."
        )
        expect_finite(out.x, "rows")
        return f"{packed.lengths} rows to {declared}, width {projector.in_dim} to {projector.out_dim}"

    @torch.no_grad()
    def alone() -> str:
        worst = 0.0
        for train in (False, True):
            with disturbed(projector, train=train):
                together = [row.clone() for row in projector(packed, context).items()]
                for index, single in enumerate(packed.singles()):
                    what = f"rows of item {index}, alone and in a batch ({'training' if train else 'evaluation'} mode)"
                    worst = max(worst, expect_close(projector(single, context.item(index)).x, together[index], what))
        return f"largest difference {worst:.1g}"

    def gradients() -> str:
        given: list[Tensor] = []

        def watched(rows: Tensor) -> Tensor:
            given.append(rows.detach().clone().requires_grad_())
            return given[-1]

        rows_in = mapped_rows(packed, watched)
        with disturbed(projector, train=True) as parameters:
            x = projector(rows_in, context).x
            expect(x.requires_grad, "its rows carry no gradient; nothing before it could be trained.")
            _scalar(x).backward()  # type: ignore[no-untyped-call]
            through = any(rows.grad is not None and bool(rows.grad.any()) for rows in given)
            expect(through, "no gradient reaches its input; the encoder before it could not be trained.")
            return expect_gradients(parameters) if parameters else "no parameters; the gradient passes through"

    options_law = f"{label}: options can be read back"
    served = list(getattr(projector, "own", None) or [context.modality])
    option_law(ledger, options_law, projector, projector.in_dim, projector.out_dim, serve=served, **options)
    remedy = "compute the same number in forward() and out_shape(); set self.out_dim to the width of the rows."
    ledger.prove(rows_law, rows, remedy=remedy)
    remedy = "let each item see its own rows only: mask, and use no statistics over the batch."
    ledger.prove(f"{label}: an item alone equals the item in a batch", alone, remedy=remedy, needs=[rows_law])
    remedy = "leave no detach() or no_grad() inside, and no parameter that forward() does not use."
    ledger.prove(f"{label}: gradients reach it and pass through it", gradients, remedy=remedy, needs=[rows_law])
    half = mapped_rows(packed, lambda rows: rows.to(torch.bfloat16))
    remedy = "cast inputs to the weights' dtype: packed.x.to(self.weight)."
    with torch.no_grad():
        proof = lambda: _in_bfloat16(projector, lambda m: m(half, context).x)  # noqa: E731
        ledger.prove(f"{label}: runs in bfloat16", proof, remedy=remedy, needs=[rows_law])
    return ledger.is_kept(rows_law)


def made_rows(in_dim: int, lengths: Sequence[int] = (6, 1, 11, 6)) -> Packed:
    """Rows of several items to try a projector on."""
    draw = torch.Generator().manual_seed(1)
    shapes = tuple(Shape(count, times=tuple(0.5 * step for step in range(count))) for count in lengths)
    return Packed(torch.randn(sum(lengths), in_dim, generator=draw), shapes)
