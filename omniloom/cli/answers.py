"""Answers on the terminal: text, generated items as files, pictures as blocks of colour, or one JSON object."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omniloom.api import Answer, Conversation, Omni
from omniloom.cli.terminal import console, say, warn, working
from omniloom.media import Payload, to_data_uri
from omniloom.sequence import Sample

__all__ = ["ANSWERS", "Desk"]

ANSWERS = Path("answers")
_PICTURE_COLUMNS = 48


class Desk:
    """Asks questions and shows what comes back.

    `options`: as of `Omni.chat`. `save_to`: folder of generated items; None: `answers`, and with `as_json` none, the
    items are in the object as data URIs.
    """

    def __init__(self, omni: Omni, options: Mapping[str, Any], *, as_json: bool, save_to: Path | None) -> None:
        self.omni, self.options, self.as_json, self.save_to = omni, dict(options), as_json, save_to

    def answer(self, conversation: Conversation, parts: Sequence[Any]) -> None:
        """Ask the next question of a conversation and show the answer."""
        started = time.perf_counter()
        with working("thinking"):
            facts = self._prompt_facts(conversation, parts)
            answer = conversation.ask(*parts, **self.options)
        if self.as_json:
            say(json.dumps(self._object(answer, facts, time.perf_counter() - started), ensure_ascii=False))
        else:
            self._show(answer)

    def _prompt_facts(self, conversation: Conversation, parts: Sequence[Any]) -> dict[str, Any]:
        """How many slots the prompt fills, and each of its items."""
        pipeline = self.omni.engine.pipeline
        sample = Sample("", conversation.turns + self.omni.turns(parts))
        plan = pipeline.plans([pipeline.prepare(sample)], ask=True)[0]
        items = [{"modality": item.modality, "slots": item.length} for item in plan.items]
        return {"prompt_slots": plan.shape[1], "prompt_items": items}

    def _object(self, answer: Answer, facts: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        items: list[dict[str, str]]
        if self.save_to is not None:
            paths = self.save(answer)
            items = [{"modality": name, "path": str(path)} for (name, _), path in zip(answer.items, paths, strict=True)]
        else:
            items = [{"modality": name, "data": to_data_uri(payload)} for name, payload in answer.items]
        return {"text": answer.text, "finish": answer.finish, "items": items, **facts, "seconds": round(seconds, 3)}

    def _show(self, answer: Answer) -> None:
        if answer.text or not answer.items:
            say(_printable(answer.text) or "(no answer)")
        for (modality, payload), path in zip(answer.items, self.save(answer), strict=True):
            say(f"[{modality}: {path}]")
            _show_picture(payload)
        if answer.finish == "length":
            warn(f"(cut at {self.options['max_new']} tokens; --max-new allows more)")

    def save(self, answer: Answer) -> list[Path]:
        """Write the items of an answer to new files; nothing is ever overwritten."""
        if not answer.items:
            return []
        folder = self.save_to or ANSWERS
        number = 1
        while any(folder.glob(f"answer{number}-*")):
            number += 1
        return answer.save_items(folder, f"answer{number}")


def _printable(text: str) -> str:
    """Text that cannot steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def _show_picture(payload: Payload) -> None:
    """A picture as half blocks of colour, two pixels a character, on a terminal that has colours."""
    out = console()
    if payload.kind != "image" or not out.is_terminal or out.color_system is None:
        return
    import numpy as np
    import PIL.Image
    from rich.text import Text

    picture = PIL.Image.fromarray(payload.pixels)  # type: ignore[attr-defined]
    width = min(_PICTURE_COLUMNS, out.width, max(picture.width, 16))
    height = min(max(2, round(picture.height * width / picture.width)), 2 * _PICTURE_COLUMNS) // 2 * 2
    rows = np.asarray(picture.resize((width, height), PIL.Image.Resampling.BOX)).tolist()
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            line.append("▀", "rgb({},{},{}) on rgb({},{},{})".format(*above, *below))
        out.print(line)
