"""Samples with references -> samples with media, through the one gateway; and what happens when a medium is broken.

loader = MediaLoader({"image": "image", "speech": "audio"}, on_error="skip", quarantine=run / "quarantine.jsonl")
sample = loader.load(source[3], source.media_root)          None where it was skipped
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from omniloom.data.records import modality_of
from omniloom.errors import ConfigError, DataError, MediaError, did_you_mean
from omniloom.media import Limits, Payload, load
from omniloom.sequence import Codes, Item, Sample, Turn

__all__ = ["MediaLoader", "load_media", "naming"]


def load_media(
    sample: Sample, payload_kinds: Mapping[str, str], limits: Limits | None = None, root: str | Path | None = None
) -> Sample:
    """A copy whose items hold payloads, with their digests as keys. Items that hold codes or payloads stay as they are.

    Args:
        payload_kinds: modality -> kind of payload (`omniloom.media.KINDS`).
        limits: bounds of each item; None: the gateway's defaults.
        root: paths start from it and may not leave it, absolute ones included; None: paths are taken as they are.
    Raises:
        MediaError: a medium is missing, broken, of another kind or too large.
        DataError: an item of a modality that is not in the table.
    """

    def loaded(turn: Turn, item: Item) -> Item:
        modality = modality_of(item.modality, payload_kinds)
        if modality not in payload_kinds:
            hint = did_you_mean(modality, payload_kinds)
            raise DataError(f"sample {sample.id!r} holds an item of the unknown modality {modality!r}.{hint}")
        if isinstance(item.payload, Codes):
            return replace(item, modality=modality)
        payload: Any = load(
            item.payload, payload_kinds[modality], limits=limits, root=root, allow_absolute=root is None
        )
        assert isinstance(payload, Payload)
        return replace(item, modality=modality, payload=payload, key=item.key or payload.digest())

    return sample.map_items(loaded)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """A broken medium met inside is said to be of `what`, a sample or a modality; of nothing if that is empty."""
    try:
        yield
    except MediaError as error:
        if not what:
            raise
        raise MediaError(error.code, f"{what}: {error.message}") from error


class MediaLoader:
    """`load_media` with a policy for broken media.

    Args:
        payload_kinds, limits: as in `load_media`.
        on_error: "raise", or "skip": the sample is left out, counted and written down.
        quarantine: JSON lines of what was left out, {"id", "code", "reason"}; None: nowhere.
        run_limit: so many failures behind one another stop the run.
        window, share: so does a larger share of failures among the last `window` samples.
    """

    def __init__(
        self,
        payload_kinds: Mapping[str, str],
        limits: Limits | None = None,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        quarantine: Path | None = None,
        run_limit: int = 100,
        window: int = 1000,
        share: float = 0.01,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
        self.payload_kinds, self.limits, self.on_error, self.quarantine = (
            dict(payload_kinds),
            limits,
            on_error,
            quarantine,
        )
        self.run_limit, self.window, self.share = run_limit, window, share
        self.loaded = 0
        self.failures: Counter[str] = Counter()
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=window)
        self._seen: set[str] = set()

    def load(self, sample: Sample, root: str | Path | None = None) -> Sample | None:
        """The sample with its media; None if it was skipped.

        Raises:
            MediaError: with on_error "raise", as `load_media`.
            DataError: too many samples failed, so that something else than single files must be wrong.
        """
        try:
            with naming(f"sample {sample.id!r}" if self.on_error == "raise" else ""):
                result = load_media(sample, self.payload_kinds, self.limits, root)
        except MediaError as error:
            if self.on_error == "raise":
                raise
            self._failed(sample, error)
            return None
        self.loaded += 1
        self._in_a_row = 0
        self._recent.append(False)
        return result

    def _failed(self, sample: Sample, error: MediaError) -> None:
        self.failures[error.code] += 1
        self._in_a_row += 1
        self._recent.append(True)
        if self.quarantine is not None and sample.id not in self._seen:
            self._seen.add(sample.id)
            self.quarantine.parent.mkdir(parents=True, exist_ok=True)
            with self.quarantine.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": sample.id, "code": error.code, "reason": error.message}) + "\n")
        count = sum(self._recent)
        is_full = len(self._recent) == self.window
        if self._in_a_row >= self.run_limit:
            what = f"{self._in_a_row} samples in a row could not be loaded"
        elif is_full and count > self.share * self.window:
            what = f"{count} of the last {self.window} samples could not be loaded, more than {self.share:.0%}"
        else:
            return
        kinds = ", ".join(f"{code} {times}" for code, times in self.failures.most_common())
        raise DataError(
            f"{what} ({kinds}); the last was {sample.id!r}: {error.message} Run `omniloom check` on the data."
        )
