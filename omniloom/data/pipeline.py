"""From samples to plans, the same for training, evaluation, prediction and chat.

Media are decoded through the gateway, output items become codes, items of frozen encoders become cached rows, and the
planner does the rest. What is the same every time is kept: raw tensors in memory up to a bound, rows on disk.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omniloom.checkpoint.tensors import digest_of
from omniloom.data.cache import FeatureCache
from omniloom.data.loading import load_media, naming
from omniloom.data.splitting import split_items
from omniloom.errors import MediaError
from omniloom.media import Limits
from omniloom.model import OmniModel
from omniloom.model.media import run_encoder
from omniloom.registry import schema
from omniloom.sequence import Bundle, Codes, Item, Packed, Plan, PlannedItem, Projected, Raw, Sample, Turn

__all__ = ["Pipeline", "seed_of"]


def seed_of(*parts: object) -> int:
    """A seed from names and numbers: equal parts give equal seeds, on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7], "big")


class Pipeline:
    """Plans samples for one model.

    `cache`: where rows of frozen encoders are kept; None computes them anew. `memory_bytes`: bound of the raw tensors
    kept in memory. `limits`: of the media gateway.
    """

    def __init__(
        self,
        model: OmniModel,
        *,
        cache: FeatureCache | None = None,
        memory_bytes: int = 1 << 30,
        limits: Limits | None = None,
    ) -> None:
        self.model = model
        self.cache = cache
        self.memory_bytes = memory_bytes
        self.limits = limits or Limits()
        self._late = [name for name, row in model.rows.items() if row.input is not None and row.input.is_late]
        self._kinds = {name: row.payload_kind for name, row in model.rows.items()}
        self._raws: OrderedDict[tuple[str, str], Raw] = OrderedDict()
        self._raws_bytes = 0
        self._codes: dict[tuple[str, str], Codes] = {}
        self._encoder_keys: dict[str, tuple[dict[str, str], str]] = {}

    def freeze(self, components: Iterable[str]) -> None:
        """Declare which components will not change from here on; rows are cached for frozen encoders only.

        Codes and keys made before are forgotten, because the parts may have been trained since.
        """
        frozen = set(components)
        self._codes.clear()
        self._encoder_keys = {
            modality: self._encoder_key(modality)
            for modality, (encoder, _) in self.model.inputs.items()
            if self.cache is not None and encoder in frozen
        }

    def prepare(self, sample: Sample, *, root: Path | None = None, as_codes: bool = True) -> Sample:
        """The sample with its media decoded and, unless `as_codes` is False, its output items as codes.

        Raises:
            MediaError, DataError: as the gateway and the sources say.
        """
        with naming(_name_of(sample)):
            loaded = split_items(load_media(sample, self._kinds, self.limits, root), self.model.rows)
        return self._with_codes(loaded) if as_codes else loaded

    def plans(
        self, samples: Sequence[Sample], *, ask: bool = False, rngs: Sequence[torch.Generator] | None = None
    ) -> list[Plan]:
        """Plans of prepared samples. `rngs`: one per sample, for processors that augment; None for none."""
        return [self.model.planner.plan(sample, ask=ask) for sample in self._ready(samples, rngs)]

    def items(
        self, samples: Sequence[Sample], *, rngs: Sequence[torch.Generator] | None = None
    ) -> list[list[PlannedItem]]:
        """The input items of each prepared sample, read and shaped but in no slots; `rngs` as in `plans`."""
        return [self.model.planner.items(sample) for sample in self._ready(samples, rngs)]

    # -- inside -----------------------------------------------------------------------------------------------

    def _ready(self, samples: Sequence[Sample], rngs: Sequence[torch.Generator] | None) -> list[Sample]:
        """Samples whose media are raw tensors, cached rows of frozen encoders, or projected already where only the
        parts know how many rows there are."""
        generators: Sequence[torch.Generator | None] = rngs if rngs is not None else [None] * len(samples)
        ready = []
        for sample, rng in zip(samples, generators, strict=True):
            with naming(_name_of(sample)):
                ready.append(sample.map_items(lambda turn, item, rng=rng: self._with_raw(item, rng)))
        if self._encoder_keys:
            ready = self._with_features(ready)
        return [self._with_late(sample) for sample in ready] if self._late else ready

    def _encoder_key(self, modality: str) -> tuple[dict[str, str], str]:
        """The processor's spec and the encoder's digest: what its rows depend on beside the payload."""
        path = self.model.rows[modality].input
        assert path is not None
        processor = {name: repr(getattr(path.processor, name, None)) for name in schema(type(path.processor))}
        component = self.model.inputs[modality][0]
        processor["type"] = type(path.processor).__qualname__
        return processor, digest_of(self.model.components()[component])

    def _with_codes(self, sample: Sample) -> Sample:
        def change(turn: Turn, item: Item) -> Item:
            is_out = item.is_output_of(turn)
            row = self.model.rows.get(item.modality)
            if not is_out or row is None or row.output is None or isinstance(item.payload, Codes):
                return item
            key = (item.modality, item.key or item.payload.digest())
            if key not in self._codes:
                self._codes[key] = row.output.codec.encode(item.payload)
            return replace(item, payload=self._codes[key], role="out")

        return sample.map_items(change)

    def _with_raw(self, item: Item, rng: torch.Generator | None) -> Item:
        row = self.model.rows.get(item.modality)
        if row is None or row.input is None or isinstance(item.payload, Codes | Packed | Tensor | Bundle):
            return item
        is_cached = item.modality in self._encoder_keys
        key = (item.modality, item.key or item.payload.digest())
        if is_cached and self.cache is not None and (rows := self.cache.get(self._row_key(*key))) is not None:
            return replace(item, payload=rows, key=key[1])
        with naming(item.modality):
            if rng is not None and not is_cached:
                return replace(item, payload=_finite(row.input.processor(item.payload, rng)), key=key[1])
            return replace(item, payload=self._raw(key, row.input.processor, item.payload), key=key[1])

    def _raw(self, key: tuple[str, str], processor: Any, payload: Any) -> Raw:
        if key in self._raws:
            self._raws.move_to_end(key)
            return self._raws[key]
        raw = _finite(processor(payload, None))
        self._raws[key] = raw
        self._raws_bytes += raw.nbytes
        while self._raws_bytes > self.memory_bytes and len(self._raws) > 1:
            _, old = self._raws.popitem(last=False)
            self._raws_bytes -= old.nbytes
        return raw

    def _row_key(self, modality: str, payload_key: str) -> str:
        return FeatureCache.key(payload_key, *self._encoder_keys[modality])

    @torch.no_grad()
    def _with_features(self, samples: Sequence[Sample]) -> list[Sample]:
        """Run each frozen encoder once over what the cache did not hold."""
        missing: dict[str, dict[str, Raw]] = {}
        for sample in samples:
            for _, item in sample.items():
                if (
                    item.modality in self._encoder_keys
                    and isinstance(item.payload, Tensor | Bundle)
                    and item.key is not None
                ):
                    missing.setdefault(item.modality, {})[item.key] = item.payload
        made: dict[tuple[str, str], Packed] = {}
        for modality, raws in missing.items():
            encoder: Any = self.model.parts[self.model.inputs[modality][0]]
            path = self.model.rows[modality].input
            assert path is not None
            for key, raw in raws.items():
                # One by one: in a batch the last bits of an item's rows depend on its neighbours, and after a kill the
                # neighbours would be others, because some of the batch is in the cache already.
                packed = run_encoder(modality, encoder, [raw.to(self.model.device)])
                # The shape with the processor's clock: an encoder sees rows and knows no seconds.
                made[modality, key] = replace(packed.singles()[0], shapes=(path.encoded(raw),))
                if self.cache is not None:
                    self.cache.put(self._row_key(modality, key), made[modality, key])

        def change(turn: Turn, item: Item) -> Item:
            found = made.get((item.modality, item.key or ""))
            return (
                item if found is None or not isinstance(item.payload, Tensor | Bundle) else replace(item, payload=found)
            )

        return [sample.map_items(change) for sample in samples]

    def _with_late(self, sample: Sample) -> Sample:
        """Project the items whose rows only their parts can count; their graph is kept for the pass that follows."""
        answer = sample.answer()
        learned = 0 if answer is None or not torch.is_grad_enabled() else len(self.model.planner.text_ids(answer.text))

        def change(turn: Turn, item: Item) -> Item:
            if item.modality not in self._late or isinstance(item.payload, Codes | Projected):
                return item
            rows = self.model.project_late(item.modality, item.payload, instruction=turn.text, answer=learned)
            return replace(item, payload=rows)

        return sample.map_items(change)


def _finite(raw: Raw) -> Raw:
    """What a processor made, unless a number of it is none: an infinite one would end the training much later."""
    tensors = raw.values() if isinstance(raw, Bundle) else [raw]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise MediaError("invalid_media", "its numbers are too large for the processor: some are infinite or none.")
    return raw


def _name_of(sample: Sample) -> str:
    return f"sample {sample.id!r}" if sample.id else ""
