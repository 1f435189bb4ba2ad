"""From a run's configuration to a composed model: parts built from their specs, wired by the table of modalities."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omniloom.backbone.causal_lm import load_tokenizer
from omniloom.config import FuserConfig, RunConfig
from omniloom.errors import ConfigError, MissingAssetError, did_you_mean
from omniloom.model.omni import OmniModel
from omniloom.model.vocab import VocabRows
from omniloom.planner import FuserRow, InputPath, ModalityRow, OutputPath, Planner, Template
from omniloom.registry import build, untrained
from omniloom.sequence import Vocabulary

__all__ = ["compose"]


def compose(config: RunConfig, *, base: Path, weights: bool = True) -> OmniModel:
    """Build the model a run declares.

    `base`: folder that part files start from. `weights` False builds every pretrained part with random weights of
    its true class, for the meta device and for tests. New parameters are drawn from (seed, component name), so
    adding a part leaves the others as they were.

    Raises:
        ConfigError: a part, an option or a width that does not fit; MissingAssetError: weights that are not here.
    """
    parts = _Parts(config, base, weights)
    options = parts.placed("backbones", config.backbone.model_dump())
    with _said_of("backbone"):
        backbone = parts.seeded("backbone", lambda: build("backbones", options, base=base))
        tokenizer = load_tokenizer(options["id"], revision=options.get("revision"))
    inputs: dict[str, tuple[str, list[str]]] = {}
    shaped: dict[str, InputPath] = {}
    coded: dict[str, tuple[Any, Any]] = {}
    tools: dict[str, Any] = {}
    for name, row in config.modalities.items():
        if row.in_ is not None:
            inputs[name], shaped[name] = _input(parts, name, row.in_, backbone.width)
        if row.out is not None and row.out.codec is not None:
            codec = parts.get("codecs", f"{name}/codec", row.out.codec)[1]
            layout = build("layouts", row.out.layout or "flattened", codec.sizes, base=base)
            coded[name] = (codec, layout)
        if row.out is not None and row.out.generator is not None:
            tools[name] = build("generators", row.out.generator, base=base)
    vocabulary = Vocabulary.of(backbone.vocab_size, {name: layout.size for name, (_, layout) in coded.items()})
    rows = {
        name: ModalityRow(
            name,
            row.payload,
            row.markers,
            shaped.get(name),
            OutputPath(*coded[name], vocabulary.blocks[name]) if name in coded else None,
            tuple(row.split or ()),
        )
        for name, row in config.modalities.items()
    }
    if coded:
        size = vocabulary.size - vocabulary.base_size
        head = backbone.head_table().detach()
        # As embedded, not as stored: some models scale their rows on the way in, and codes stand beside scaled ones.
        embeds = backbone.embed(torch.arange(vocabulary.base_size, device=head.device)[None])[0].detach()
        parts.made["vocab"] = parts.seeded("vocab", lambda: VocabRows(vocabulary.base_size, size, embeds, head))
    fused: dict[str, tuple[str, list[str]]] = {}
    fusers = []
    for name, fuser in config.fusers.items():
        fused[name], fuser_row = _fuser(parts, name, fuser, shaped, backbone.width)
        fusers.append(fuser_row)
    _require_width(shaped, fusers, backbone.width)
    template = Template.of(
        tokenizer,
        kind=config.backbone.template,
        system=config.backbone.system,
        stop=backbone.stop_ids,
        is_answer_bare=backbone.decoder_start is not None,
        kinds=sorted({row.payload for row in config.modalities.values() if row.in_ is not None}),
        begins=backbone.begins,
    )
    positions = build("positions", config.context.positions, base=base)
    if positions.axes > backbone.position_axes:
        raise ConfigError(
            f"positions on {positions.axes} axes, but the language model {config.backbone.id!r} takes "
            f"{backbone.position_axes}. Set context.positions: sequential."
        )
    planner = Planner(
        tokenizer,
        template,
        rows,
        vocabulary,
        max_length=config.context.max,
        overflow=config.context.over,
        positions=positions,
        interleaving=build("interleavings", config.context.interleave, base=base),
        fusers=fusers,
        decoder_start=backbone.decoder_start,
    )
    adapters = {}
    for name, spec in config.adapters.items():
        with _said_of(name):
            adapters[name] = build("interaction", spec, base=base)
    model = parts.seeded(
        "adapters",
        lambda: OmniModel(backbone, planner, inputs, parts.made, adapters, tools, fused=fused, build=parts.build_anew),
    )
    return model.eval()


def place(reference: str, base: Path) -> str:
    """A pretrained part's id: `./folder` and `../folder` start from the run's folder, everything else stays."""
    return str((base / reference).resolve()) if reference.startswith(("./", "../")) else reference


def _found(value: Any, base: Path, *, is_inner: bool = False) -> Any:
    """A spec and the specs inside it with their relative folders, and the inner ones' part files, found from `base`."""
    if isinstance(value, list | tuple):
        return [_found(item, base, is_inner=True) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _found(item, base, is_inner=True) for key, item in value.items()}
    if isinstance(found.get("id"), str):
        found["id"] = place(found["id"], base)
    if is_inner and isinstance(found.get("type"), str) and ".py:" in found["type"]:
        file, _, name = found["type"].rpartition(":")
        found["type"] = f"{(base / file).resolve()}:{name}"
    return found


@contextmanager
def _said_of(name: str) -> Iterator[None]:
    """What a part refuses is said of its place."""
    try:
        yield
    except (ConfigError, MissingAssetError) as error:
        message = error.message if isinstance(error, ConfigError) else str(error)
        if name in message:
            raise
        raise type(error)(f"{name}: {message}") from error


class _Parts:
    """Builds parts once per component name."""

    def __init__(self, config: RunConfig, base: Path, weights: bool) -> None:
        self.config, self.base, self.weights = config, base, weights
        self.made: dict[str, nn.Module] = {}
        self.specs: dict[str, Any] = {}

    def placed(self, room: str, spec: Any) -> Any:
        """The spec with an `id` that is a relative folder found from the run's folder, and told to take random weights
        where the part has pretrained ones and none are wanted. Specs inside it are placed likewise."""
        options = {"type": spec} if isinstance(spec, str) else _found(dict(spec), self.base)
        return options if self.weights else untrained(room, options, base=self.base)

    def seeded(self, name: str, make: Callable[[], Any]) -> Any:
        """Run a constructor with its own random numbers."""
        digest = hashlib.sha256(f"{self.config.seed}/{name}".encode()).digest()
        with torch.random.fork_rng():
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
            return make()

    def build_anew(self, room: str, spec: Any, *wired: Any) -> Any:
        """A part of nobody's name, for an interaction that asks for one; drawn from the numbers of the moment."""
        return build(room, self.placed(room, spec), *wired, base=self.base)

    def served(self, component: str, part: Any, modality: str) -> None:
        """Tell a projector that this modality uses it; its own parameters are drawn from the names of both."""
        self.seeded(f"{component}/{modality}", lambda: part.serve(modality))

    def get(self, room: str, own_name: str, spec: Any, *wired: Any) -> tuple[str, Any]:
        """(component name, module) of a place in the table: its own part, or a shared one by name."""
        name = own_name
        if isinstance(spec, Mapping) and "component" in spec:
            name = str(spec["component"])
            if name not in self.config.components:
                raise ConfigError(
                    f"{own_name} names the component {name!r}.{did_you_mean(name, self.config.components)}"
                )
            shared = self.config.components[name]
            if shared.room != room:
                raise ConfigError(f"{own_name} needs a part of {room}, the component {name!r} is one of {shared.room}.")
            spec = shared.spec
        if name not in self.made:
            wanted = self.placed(room, spec)
            with _said_of(name):
                self.made[name] = self.seeded(name, lambda: build(room, wanted, *wired, base=self.base))
        elif wired and getattr(self.made[name], "in_dim", wired[0]) != wired[0]:
            raise ConfigError(
                f"the shared component {name!r} takes rows of width {self.made[name].in_dim}, "
                f"{own_name} gives {wired[0]}."
            )
        return name, self.made[name]


def _input(parts: _Parts, name: str, row: Any, width: int) -> tuple[tuple[str, list[str]], InputPath]:
    processor = build("processors", parts.placed("processors", row.processor), base=parts.base)
    encoder_name, encoder = parts.get("encoders", f"{name}/encoder", row.encoder)
    names, chain, _ = _chain(parts, name, row.links, encoder.out_dim, width)
    slots, stamps = row.slots, row.timestamps
    path = InputPath(
        processor,
        encoder,
        chain,
        slots.max if slots else None,
        slots.over if slots else "refuse",
        row.insert,
        row.attention,
        stamps.format if stamps else None,
        stamps.every_s if stamps else 0.0,
        row.windows,
    )
    return (encoder_name, names), path


def _width(path: Any) -> int:
    """How wide an input's rows are at the end of its projectors."""
    width: int = path.chain[-1].out_dim if path.chain else path.encoder.out_dim
    return width


def _require_width(shaped: Mapping[str, InputPath], fusers: Sequence[FuserRow], width: int) -> None:
    """Hold what fills slots to the language model's width."""
    taken = {name for row in fusers if row.has_rows for name in row.inputs if name not in row.keep}
    for name, path in shaped.items():
        if _width(path) != width and name not in taken and path.insert != "inject":
            raise ConfigError(
                f"the projectors of {name!r} end at width {_width(path)}, the language model takes {width}. "
                "End the chain with one that projects."
            )


def _chain(parts: _Parts, name: str, links: Any, in_dim: int, width: int) -> tuple[list[str], list[Any], int]:
    """(component names, parts, the width they end at) of the projectors of a modality or a fuser."""
    names: list[str] = []
    chain: list[Any] = []
    for suffix, spec in links:
        component, part = parts.get("projectors", f"{name}/projector{suffix}", spec, in_dim, width)
        parts.served(component, part, name)
        names.append(component)
        chain.append(part)
        in_dim = part.out_dim
    return names, chain, in_dim


def _fuser(
    parts: _Parts, name: str, config: FuserConfig, shaped: Mapping[str, InputPath], width: int
) -> tuple[tuple[str, list[str]], FuserRow]:
    widths = {modality: _width(shaped[modality]) for modality in config.inputs}
    component, fuser = parts.get("fusers", name, config.spec, widths, width)
    names, chain, out_dim = _chain(parts, name, config.links, fuser.out_dim, width)
    if out_dim != width:
        raise ConfigError(
            f"the fuser {name!r} ends at width {out_dim}, the language model takes {width}. "
            "Give it a `projector` that projects."
        )
    row = FuserRow(
        name,
        tuple(config.inputs),
        fuser,
        chain,
        config.when,
        config.insert,
        tuple(config.keep),
        config.markers,
    )
    return (component, names), row
