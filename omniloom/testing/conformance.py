"""The conformance kit: what the author of a new modality runs before training anything.

    from omniloom.testing import check_modality
    print(check_modality("events.py"))                      made-up payloads of the modality's kind
    print(check_modality("events.py", examples=["a.npy"]))  the author's own recordings

or `python -m omniloom.testing events.py`. Every law is tried; what breaks is told at once, with what was got, what was
expected and what to do. A modality that passes can be trained, packed, cached, saved, resumed and served like the
built-in ones.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml

from omniloom.codecs import Codec, Layout
from omniloom.config import ModalityConfig, RunConfig, check_parts, load_run, relocated
from omniloom.encoders import Encoder, Processor
from omniloom.errors import ConfigError
from omniloom.media import Payload, load
from omniloom.projectors import Context, Projector
from omniloom.registry import BUILT_IN, names
from omniloom.sequence import Packed, Raw
from omniloom.testing.codec_laws import codec_laws, expect_payload
from omniloom.testing.doubles import tiny_language_model
from omniloom.testing.model_laws import BESIDE, ModelLaws
from omniloom.testing.part_laws import (
    ROWS_LAW,
    disturbed,
    encoder_laws,
    expect,
    made_rows,
    processor_laws,
    projector_laws,
)
from omniloom.testing.payloads import made_payloads
from omniloom.testing.raw_tensors import tensors_of
from omniloom.testing.report import ConformanceFailure, ConformanceReport, Ledger
from omniloom.train.resolve import settle

__all__ = [
    "ConformanceFailure",
    "ConformanceReport",
    "check_codec",
    "check_encoder",
    "check_modality",
    "check_processor",
    "check_projector",
]

_BUILT = "file: its MODALITY builds"
_TAKEN = "file: its parts take payloads of its kind"


def check_modality(
    modality: str | Path | Mapping[str, Any] | ModalityConfig,
    *,
    examples: Sequence[Any] | None = None,
    name: str | None = None,
    run: RunConfig | None = None,
    base: str | Path = ".",
    seed: int = 0,
) -> ConformanceReport:
    """Prove that a modality keeps every law, in a tiny composed model beside a second modality.

    Args:
        modality: a modality file, the name of an installed modality, a MODALITY dictionary, or a row of a run.
        examples: payloads, or anything the media gateway reads; sizes should differ. None: made-up ones of its kind,
            with which a part that expects meaningful media may not agree.
        name: of the modality; by default the file's.
        run: the run a row comes from, where it uses shared `components`.
        base: the folder that part files of a row start from.
        seed: of made-up payloads and of the parts' first weights.
    Raises:
        ConformanceFailure: lists every broken law; its `report` holds all of them.
    """
    name = name or _name_of(modality)
    ledger = Ledger(name)
    with tempfile.TemporaryDirectory(prefix="omniloom-conformance-") as place, torch.random.fork_rng():
        torch.manual_seed(seed)
        folder = Path(place).resolve()
        with _as_row(modality, Path(base), folder) as row:
            _check(ledger, _Tried(row, name, run, folder, seed), examples)
    return ledger.report()


def check_processor(processor: Processor, payloads: Sequence[Payload]) -> ConformanceReport:
    """Prove the laws of a processor on two or more payloads.

    Raises:
        ConformanceFailure: lists every broken law.
    """
    ledger = Ledger(type(processor).__name__)
    processor_laws(ledger, processor, payloads)
    return ledger.report()


def check_encoder(encoder: Encoder, processor: Processor, payloads: Sequence[Payload]) -> ConformanceReport:
    """Prove the laws of an encoder behind its processor, on two or more payloads of different sizes.

    Raises:
        ConformanceFailure: lists every broken law.
    """
    ledger = Ledger(type(encoder).__name__)
    encoder_laws(ledger, encoder, processor, payloads)
    return ledger.report()


def check_projector(projector: Projector, packed: Packed | None = None) -> ConformanceReport:
    """Prove the laws of a projector, on rows of several items; None makes rows of its width.

    Raises:
        ConformanceFailure: lists every broken law.
    """
    ledger = Ledger(type(projector).__name__)
    table = torch.randn(20, projector.out_dim, generator=torch.Generator().manual_seed(0))
    rows = packed or made_rows(projector.in_dim)
    context = Context("rows", table, _asked(len(rows)), lambda text: table[[ord(letter) % 20 for letter in text]])
    projector.serve(context.modality)
    projector_laws(ledger, projector, rows, context)
    return ledger.report()


def check_codec(codec: Codec, payloads: Sequence[Payload], layout: Layout | None = None) -> ConformanceReport:
    """Prove the laws of a codec, and of a layout of its codes, on two or more payloads.

    Raises:
        ConformanceFailure: lists every broken law.
    """
    ledger = Ledger(type(codec).__name__)
    codec_laws(ledger, codec, payloads, layout)
    return ledger.report()


# -- the tiny run around the modality -------------------------------------------------------------------------------


class _Tried:
    """The run that a modality is tried in: written to a file, read back and settled, as `train` does it."""

    def __init__(self, row: Mapping[str, Any], name: str, run: RunConfig | None, folder: Path, seed: int) -> None:
        self.name, self.folder, self.seed = name, folder, seed
        self.beside = "beside" if name != "beside" else "other"
        shared = {} if run is None else run.model_dump(mode="json", by_alias=True)["components"]
        self.values = {
            "name": "conformance",
            "seed": seed,
            "threads": torch.get_num_threads(),
            "backbone": {"id": "./language-model"},
            "components": shared,
            "modalities": {name: dict(row), self.beside: BESIDE},
        }

    def settled(self) -> tuple[RunConfig, Path]:
        """(run, run folder)."""
        tiny_language_model(self.folder / "language-model", seed=self.seed)
        path = self.folder / "run.yaml"
        path.write_text(yaml.safe_dump(self.values, sort_keys=False))
        loaded = load_run(path)
        wrong = check_parts(loaded)
        if wrong:
            raise ConfigError("; ".join(problem.message for problem in wrong))
        folder = self.folder / "run"
        return settle(loaded, folder), folder


def _check(ledger: Ledger, tried: _Tried, examples: Sequence[Any] | None) -> None:
    made: list[ModelLaws] = []

    def builds() -> str:
        config, folder = tried.settled()
        made.append(ModelLaws(config, folder, tried.name, tried.beside, []))
        count = sum(
            value.numel()
            for name, part in made[0].model.parts.items()
            if name.startswith(f"{tried.name}/")
            for value in part.parameters()
        )
        return f"{count:,} parameters of its own"

    ledger.prove(
        _BUILT, builds, remedy="see `omniloom check`; the file must import and hold a MODALITY, alone in any folder."
    )
    ledger.prove(
        _TAKEN,
        lambda: _choose(made[0], examples, tried.seed),
        remedy="pass `examples`: two or more of your own recordings.",
        needs=[_BUILT],
    )
    if ledger.prove(
        "file: examples differ",
        lambda: _differ(made[0].payloads),
        remedy="give two or more different examples.",
        needs=[_TAKEN],
    ):
        _prove_parts(ledger, made[0])


def _prove_parts(ledger: Ledger, laws: ModelLaws) -> None:
    row, written = laws.row, laws.config.modalities[laws.name]
    if row.input is not None and written.in_ is not None:
        path = row.input
        encoder: Any = path.encoder
        processor_laws(ledger, path.processor, laws.payloads, given=_options(written.in_.processor))
        encoder_laws(ledger, encoder, path.processor, laws.payloads, given=_options(written.in_.encoder))
        chain = [(f"projector{suffix}", _options(spec)) for suffix, spec in written.in_.links]
        if ledger.is_kept(ROWS_LAW):
            _prove_chain(ledger, laws, chain)
        laws.prove_input(ledger)
    if row.output is not None and written.out is not None:
        codec_laws(ledger, row.output.codec, laws.payloads, row.output.layout, given=_options(written.out.codec))
        laws.prove_codes(ledger)
    if laws.name in laws.model.tools:
        tool = laws.model.tools[laws.name]

        def renders() -> str:
            expect_payload(tool.render("one two three"), row.payload_kind)
            return f"a payload of kind {row.payload_kind!r}"

        remedy = "return a payload of the row's kind from render(text)."
        ledger.prove("generator: makes a payload of text", renders, remedy=remedy)


def _asked(count: int) -> list[str]:
    """An instruction for each item; they differ, in length as well."""
    return [f"What is this{'?' * (index + 1)}" for index in range(count)]


def _prove_chain(ledger: Ledger, laws: ModelLaws, chain: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """The laws of every projector, each on the rows that the part before it gives."""
    model, path = laws.model, laws.row.input
    assert path is not None
    encoder: Any = path.encoder
    context = Context(laws.name, model.backbone.embedding_table(), _asked(len(laws.payloads)), model.say)
    with torch.no_grad(), disturbed(encoder):  # a gate may hold the rows at zero in the beginning
        packed = encoder([path.processor(payload, None) for payload in laws.payloads])
    for (label, options), projector in zip(chain, path.chain, strict=True):
        part: Any = projector
        if not projector_laws(ledger, part, packed, context, label=label, given=options):
            break
        with torch.no_grad(), disturbed(part):
            packed = part(packed, context)


def _choose(laws: ModelLaws, examples: Sequence[Any] | None, seed: int) -> str:
    """Give the laws their payloads: the author's, or the first made-up set that all parts accept; failing that, the
    first that the processor accepts, so that the encoder's own laws tell what it does not."""
    kind = laws.row.payload_kind
    if examples is not None:
        laws.payloads = [load(example, kind) for example in examples]
        return f"{len(laws.payloads)} examples of its author"
    told = f"there are no made-up payloads of kind {kind!r}"
    read: list[Payload] = []
    for payloads in made_payloads(kind, channels=_channels(laws), seed=seed):
        raws: list[Raw] = []
        try:
            raws = _read(laws, payloads)
            _encode(laws, raws)
        except Exception as error:  # a set the parts do not take, for whatever reason of their own; the last is told
            told = f"no made-up payload of kind {kind!r} is taken; the last gave {type(error).__name__}: {error}"
            read = read or (list(payloads) if raws else [])
            continue
        laws.payloads = payloads
        return f"{len(payloads)} made-up payloads of kind {kind!r}"
    expect(bool(read), told)
    laws.payloads = read
    return f"{len(read)} made-up payloads of kind {kind!r}, none taken by the encoder"


def _channels(laws: ModelLaws) -> list[int]:
    """How many channels the payloads may have, from the smallest raw tensor of the encoder."""
    if laws.row.input is None:
        return []
    encoder: Any = laws.row.input.encoder
    sizes = [size for value in tensors_of(encoder.minimal_raw()) for size in reversed(value.shape)]
    return [size - offset for size in sizes for offset in (3, 0) if size > offset]


def _read(laws: ModelLaws, payloads: Sequence[Payload]) -> list[Raw]:
    if laws.row.output is not None:
        for payload in payloads:
            laws.row.output.codec.encode(payload)
    path = laws.row.input
    return [] if path is None else [path.processor(payload, None) for payload in payloads]


@torch.no_grad()
def _encode(laws: ModelLaws, raws: Sequence[Raw]) -> None:
    for raw in raws:
        encoder: Any = laws.row.input.encoder  # type: ignore[union-attr]
        encoder([raw])


def _differ(payloads: Sequence[Payload]) -> str:
    count = len({payload.digest() for payload in payloads})
    expect(count >= 2, f"{len(payloads)} examples, {count} of them different; expected two or more.")
    return f"{count} different ones"


def _options(spec: Any) -> dict[str, Any]:
    spec = spec if isinstance(spec, Mapping) else {}
    return {key: value for key, value in spec.items() if key not in ("type", "component")}


# -- what a modality may be given as --------------------------------------------------------------------------------


def _name_of(modality: Any) -> str:
    if isinstance(modality, Mapping | ModalityConfig):
        return "modality"
    stem = "".join(letter if letter.isalnum() else "_" for letter in Path(modality).stem.lower())
    return stem if stem[:1].isalpha() else f"modality_{stem}"


@contextmanager
def _as_row(modality: Any, base: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """The modality as a row that a run file in `folder` can hold."""
    if isinstance(modality, ModalityConfig):
        yield _moved(modality, base, folder)
    elif isinstance(modality, Mapping):
        with _named(modality) as row:
            yield row
    elif str(modality) in names("modalities"):
        yield {"use": str(modality)}
    else:
        path = (base / modality).resolve()
        if not path.is_file():
            raise ConfigError(f"there is no modality file {str(modality)!r}: looked at {path}.")
        yield {"use": str(path)}


def _moved(row: ModalityConfig, base: Path, folder: Path) -> dict[str, Any]:
    holder = RunConfig.model_validate(
        {"name": "row", "backbone": {"id": "x"}, "modalities": {"row": row.model_dump(mode="json", by_alias=True)}}
    )
    moved = relocated(holder, base, folder)
    return moved.model_dump(mode="json", by_alias=True)["modalities"]["row"]  # type: ignore[no-any-return]


_ROOMS = {
    "processor": "processors",
    "encoder": "encoders",
    "projector": "projectors",
    "codec": "codecs",
    "layout": "layouts",
    "generator": "generators",
}


@contextmanager
def _named(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A MODALITY dictionary as a row: its classes stand in the table of parts for as long as they are tried."""
    module = ModuleType("omniloom.testing.tried_parts")
    added: list[tuple[str, str]] = []

    def named(value: Any, room: str) -> Any:
        if isinstance(value, list | tuple):
            return [named(item, room) for item in value]
        if isinstance(value, Mapping):
            return {key: named(item, room) if key == "type" else item for key, item in value.items()}
        if not callable(value):
            return value
        name = f"tried_{value.__name__}"
        setattr(module, name, value)
        BUILT_IN[room][name] = f"{module.__name__}:{name}"
        added.append((room, name))
        return name

    sys.modules[module.__name__] = module
    try:
        row: dict[str, Any] = {}
        for key, value in table.items():
            if key in _ROOMS:
                way = "in" if key in ("processor", "encoder", "projector") else "out"
                row.setdefault(way, {})[key] = named(value, _ROOMS[key])
            elif key == "slots":
                row.setdefault("in", {})["slots"] = dict(value)
            else:
                row[key] = list(value) if isinstance(value, tuple) else value
        yield row
    finally:
        del sys.modules[module.__name__]
        for room, name in added:
            BUILT_IN[room].pop(name, None)
