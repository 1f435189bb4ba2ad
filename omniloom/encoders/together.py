"""Several encoders over one payload, side by side: their channels are joined row by row on a common clock.

Source: Whisper and BEATs in SALMONN (arXiv:2310.13289) and Ola (arXiv:2502.04328), sound and speech in video-SALMONN
(arXiv:2406.15704).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omniloom.encoders.base import Encoder, Processor
from omniloom.encoders.checks import refuse_raw, require_items
from omniloom.encoders.clock import clock_of, regular, resampled
from omniloom.errors import ConfigError, ShapeError
from omniloom.registry import build, untrained
from omniloom.sequence import Bundle, Packed, Raw, Shape

__all__ = ["TogetherEncoder", "TogetherProcessor"]

Spec = str | Mapping[str, Any]


class TogetherProcessor(Processor):
    """One payload to a bundle of what several processors make of it.

    Tensors of part `i` are named `i`, or `i.NAME` where it makes a bundle itself; `i:shape` (4,) holds its length and
    grid, `i:times_us` when its rows begin, in whole microseconds. All parts draw the same random numbers, so that
    they move a sound alike.

    Args:
        processors: two or more specs, of processors that read one kind of payload.
    Raises:
        ConfigError: fewer than two, or processors of different payloads.
    """

    def __init__(self, *, processors: Sequence[Spec]) -> None:
        self.processors = processors
        self._parts: list[Processor] = [build("processors", spec) for spec in _several(processors, "processors")]
        kinds = sorted({part.payload_kind for part in self._parts})
        if len(kinds) > 1:
            raise ConfigError(f"processors together read one payload; these read {', '.join(kinds)}.")
        self.payload_kind = kinds[0]

    def __call__(self, payload: Any, rng: torch.Generator | None = None) -> Bundle:
        """The bundle of one item.

        Raises:
            MediaError: as its parts do.
        """
        tensors: dict[str, Tensor] = {}
        for index, part in enumerate(self._parts):
            raw = part(payload, None if rng is None else rng.clone_state())
            tensors |= dict(_named(index, raw, part.shape(raw)))
        return Bundle(**tensors)

    def shape(self, raw: Bundle) -> Shape:
        """That of the first part."""
        return _shape_of(raw, 0)

    def split(self, payload: Any) -> list[Any]:
        """As the part does that needs the most pieces."""
        return self._shortest(payload).split(payload)

    def begins_s(self, payload: Any) -> list[float]:
        """As that part says."""
        return self._shortest(payload).begins_s(payload)

    def _shortest(self, payload: Any) -> Processor:
        return max(self._parts, key=lambda part: len(part.split(payload)))


class TogetherEncoder(Encoder):
    """Raw bundles of `TogetherProcessor` to rows as wide as all parts together, the first part's channels first.

    The rows of every part are brought to the clock of the first one's, or to a regular one. Rows that begin at one time
    (the pitches of a patch of sound) lie evenly until the next. Where no part has a clock, as with pictures, all must
    have as many rows, which stand in the same places.

    Args:
        encoders: two or more specs, one for each of the processors, in their order.
        rate_hz: rows a second; None takes the rows of the first part as they are, on its grid if it has one.
        sampling: "nearest" takes the row that begins nearest; "linear" mixes the two around.
        weights: False builds parts that would be pretrained with random weights.
    Raises:
        ConfigError: fewer than two encoders, a rate that is not above zero, or an unknown sampling.
    """

    def __init__(
        self,
        *,
        encoders: Sequence[Spec],
        rate_hz: float | None = None,
        sampling: Literal["nearest", "linear"] = "nearest",
        weights: bool = True,
    ) -> None:
        super().__init__()
        if rate_hz is not None and rate_hz <= 0:
            raise ConfigError(f"rate_hz={rate_hz} of encoders together; expected a rate above zero, or None.")
        if sampling not in ("nearest", "linear"):
            raise ConfigError(f"unknown sampling {sampling!r}; expected 'nearest' or 'linear'.")
        self.encoders, self.rate_hz, self.sampling, self.weights = encoders, rate_hz, sampling, weights
        specs = _several(encoders, "encoders")
        self.parts = nn.ModuleList(
            build("encoders", spec if weights else untrained("encoders", spec)) for spec in specs
        )
        self.out_dim = sum(part.out_dim for part in self._encoders())

    def forward(self, raws: Sequence[Bundle]) -> Packed:
        """Joined rows in time order.

        Raises:
            ShapeError: no items, a bundle of other parts, or rows that cannot be brought together.
        """
        require_items(self, raws)
        for index, raw in enumerate(raws):
            if not isinstance(raw, Bundle) or any(f"{part}:shape" not in raw for part in range(len(self.parts))):
                expected = f"a bundle of {len(self.parts)} parts"
                raise refuse_raw(self, index, raw, expected, "Use the processor 'together' with one part for each.")
        shapes = [[_shape_of(raw, index) for index in range(len(self.parts))] for raw in raws]
        packed = [part([_raw_of(raw, index) for raw in raws]) for index, part in enumerate(self._encoders())]
        joined, found = [], []
        for number, rows in enumerate(zip(*(part.items() for part in packed), strict=True)):
            joined.append(self._joined(list(rows), shapes[number]))
            found.append(packed[0].shapes[number] if self.rate_hz is None else self.out_shape(shapes[number][0]))
        return Packed.of(joined, found)

    def out_shape(self, shape: Shape) -> Shape:
        """The first part's rows, or as many as `rate_hz` makes of them.

        Raises:
            ShapeError: a rate is set and the rows have no times.
        """
        own = next(self._encoders()).out_shape(shape)
        if self.rate_hz is None:
            return own
        times = regular(self._clock(own, 0), self.rate_hz)
        return Shape(len(times), times=tuple(times.tolist()))

    def minimal_raw(self) -> Bundle:
        """The smallest raw tensors of all parts, which begin and end at once."""
        tensors: dict[str, Tensor] = {}
        for index, part in enumerate(self._encoders()):
            raw = part.minimal_raw()
            shape = _least_shape(raw)
            tensors |= dict(_named(index, raw, Shape(shape.len, shape.grid, (0.0,) * shape.len)))
        return Bundle(**tensors)

    def _encoders(self) -> Iterator[Encoder]:
        return iter(self.parts)  # type: ignore[arg-type]

    def _joined(self, rows: list[Tensor], shapes: list[Shape]) -> Tensor:
        own = [part.out_shape(shape) for part, shape in zip(self._encoders(), shapes, strict=True)]
        if self.rate_hz is None and all(shape.times is None for shape in own):
            if len({len(item) for item in rows}) > 1:
                raise ShapeError(
                    f"encoders together gave {[len(item) for item in rows]} rows without times; expected as many each. "
                    "Choose processors of one size, or of one rate."
                )
            return torch.cat(rows, 1)
        clocks = [self._clock(shape, index) for index, shape in enumerate(own)]
        wanted = clocks[0] if self.rate_hz is None else regular(clocks[0], self.rate_hz)
        return torch.cat(
            [resampled(item, clock, wanted, self.sampling) for item, clock in zip(rows, clocks, strict=True)], 1
        )

    def _clock(self, shape: Shape, index: int) -> Tensor:
        if shape.times is None:
            raise ShapeError(
                f"part {index} of encoders together has rows without times, which cannot be brought to a clock. "
                "Give its processor a rate."
            )
        return clock_of(shape.times)


def _several(specs: Sequence[Spec], what: str) -> Sequence[Spec]:
    if isinstance(specs, str) or not isinstance(specs, Sequence) or len(specs) < 2:
        raise ConfigError(f"{what} together are a list of two or more specs; got {specs!r}.")
    return specs


def _named(index: int, raw: Raw, shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one part under names of their own, and its shape."""
    if isinstance(raw, Tensor):
        yield f"{index}", raw
    else:
        yield from ((f"{index}.{name}", value) for name, value in raw.items())
    yield f"{index}:shape", torch.tensor([shape.len, *(shape.grid or (0, 0, 0))])
    if shape.times is not None:
        # All cells of a frame begin with it. Whole numbers survive a cast to the model's dtype.
        step = 1 if shape.grid is None else shape.grid[1] * shape.grid[2]
        yield f"{index}:times_us", torch.tensor(shape.times[::step], dtype=torch.float64).mul(1e6).round().long()


def _raw_of(raw: Bundle, index: int) -> Raw:
    if f"{index}" in raw:
        return raw[f"{index}"]
    start = f"{index}."
    return Bundle(**{name.removeprefix(start): value for name, value in raw.items() if name.startswith(start)})


def _shape_of(raw: Bundle, index: int) -> Shape:
    length, *grid = raw[f"{index}:shape"].tolist()
    times = None
    if f"{index}:times_us" in raw:
        step = grid[1] * grid[2] or 1
        times = tuple(time / 1e6 for time in raw[f"{index}:times_us"].tolist() for _ in range(step))
    return Shape(length, (grid[0], grid[1], grid[2]) if all(grid) else None, times)


def _least_shape(raw: Raw) -> Shape:
    """What a processor would say of a smallest raw tensor: its length if it tells one, pixels, or rows."""
    if isinstance(raw, Bundle):
        return Shape(int(raw["length"])) if "length" in raw else _least_shape(next(iter(raw.values())))
    if raw.dim() < 3:
        return Shape(raw.shape[0])
    grid = (raw.shape[0] if raw.dim() == 4 else 1, raw.shape[-2], raw.shape[-1])
    return Shape(grid[0] * grid[1] * grid[2], grid)
