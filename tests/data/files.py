"""Small media and manifests for the tests of this room."""

from __future__ import annotations

import base64
import io
import json
import wave
from pathlib import Path
from typing import Any

from PIL import Image


def png(colour: tuple[int, int, int] = (200, 30, 30), size: int = 6) -> bytes:
    """A plain picture."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def wav(samples: int = 800) -> bytes:
    """A short sound at 8 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00\x10" * samples)
    return file.getvalue()


def uri(content: bytes, kind: str = "image/png") -> str:
    """A data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def record(path: str = "a.png", answer: str = "a cat", **more: Any) -> dict[str, Any]:
    """One question about one picture."""
    content = [{"type": "image", "path": path}, {"type": "text", "text": "What is this?"}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}], **more}


def write_jsonl(path: Path, records: list[Any]) -> Path:
    """JSON lines; text stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records), encoding="utf-8"
    )
    return path
