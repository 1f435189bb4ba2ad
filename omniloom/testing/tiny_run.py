"""A whole run in a folder, small enough to train in seconds: a random language model, five kinds of media, one output.

    run_file = write_tiny_run(tmp_path)      then   train(run_file, out=tmp_path / "run")

Each medium carries its answer plainly (a colour, a pitch, a slope, a shape), so that learning can be seen.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from omniloom.media import Audio, Image, save
from omniloom.testing.doubles import tiny_language_model

__all__ = ["write_tiny_data", "write_tiny_run"]

_COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
_PITCHES = {"low": 200.0, "high": 1600.0}
_SLOPES = {"up": 1.0, "down": -1.0}
_FORMS = {"flat": (1.0, 1.0, 0.02), "long": (1.0, 0.1, 0.1)}


def write_tiny_data(folder: Path, *, count: int = 24, seed: int = 0) -> Path:
    """Media with `train.jsonl` and `test.jsonl`, `count` and `count` / 2 samples of every input, and the same of
    drawings in `draw_train.jsonl` and `draw_test.jsonl`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, number in (("train", count), ("test", count // 2)):
        records = [_records(folder, f"{split}-{index}", index, rng) for index in range(number)]
        lines = [json.dumps(record) + "\n" for group in records for record in group[:-1]]
        (folder / f"{split}.jsonl").write_text("".join(lines))
        (folder / f"draw_{split}.jsonl").write_text("".join(json.dumps(group[-1]) + "\n" for group in records))
    return folder


def _records(folder: Path, name: str, index: int, rng: np.random.Generator) -> list[dict[str, object]]:
    colour, pitch, slope, form = (list(table)[index % len(table)] for table in (_COLOURS, _PITCHES, _SLOPES, _FORMS))
    noise = rng.integers(-20, 20, (16, 16, 3))
    save(Image(np.clip(np.array(_COLOURS[colour]) + noise, 0, 255).astype(np.uint8)), folder / f"{name}.png")
    time = np.arange(4000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * _PITCHES[pitch] * rng.uniform(0.9, 1.1) * time)
    save(Audio(tone.astype(np.float32)[None], 16000), folder / f"{name}.wav")
    line = _SLOPES[slope] * np.linspace(-1, 1, 40)[:, None] + rng.normal(0, 0.1, (40, 2))
    np.save(folder / f"{name}-series.npy", line.astype(np.float32))
    np.save(folder / f"{name}-points.npy", (rng.normal(0, 1, (64, 3)) * _FORMS[form]).astype(np.float32))
    plain = Image(np.full((8, 8, 3), 255 * (index % 2), np.uint8))
    save(plain, folder / f"{name}-drawn.png")
    return [
        _asked(f"{name}-image", "image", f"{name}.png", "Which colour?", colour),
        _asked(f"{name}-sound", "sound", f"{name}.wav", "Which pitch?", pitch),
        _asked(f"{name}-series", "motion", f"{name}-series.npy", "Which way?", slope),
        _asked(f"{name}-points", "points", f"{name}-points.npy", "Which form?", form),
        {
            "id": f"{name}-draw",
            "messages": [
                {"role": "user", "content": f"Draw {'white' if index % 2 else 'black'}."},
                {"role": "assistant", "content": [{"type": "drawing", "path": f"{name}-drawn.png"}]},
            ],
            "meta": {"label": "white" if index % 2 else "black"},
        },
    ]


def _asked(name: str, modality: str, path: str, question: str, answer: str) -> dict[str, object]:
    content = [{"type": modality, "path": path}, {"type": "text", "text": question}]
    return {
        "id": name,
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}],
        "meta": {"label": answer},
    }


def write_tiny_run(folder: Path, *, steps: int = 6, count: int = 24, name: str = "tiny") -> Path:
    """A language model, data and `run.yaml` in `folder`; returns the run file."""
    tiny_language_model(folder / "language-model")
    write_tiny_data(folder / "data", count=count)
    everything = {"things": 3.0, "drawings": 1.0}
    run = {
        "name": name,
        "seed": 7,
        "threads": 1,
        "backbone": {"type": "causal_lm", "id": "./language-model", "dtype": "float32"},
        "adapters": {"lora": {"type": "lora", "rank": 2, "targets": ["*.q_proj", "*.v_proj"]}},
        "modalities": {
            "image": _row(
                "image",
                {"type": "image", "size_px": 16},
                {"type": "patch_vit", "patch_px": 8, "width": 32, "depth": 1, "heads": 2},
            ),
            "sound": _row(
                "audio",
                {"type": "log_mel", "num_mels": 32},
                {"type": "log_mel_conv", "num_mels": 32, "width": 32, "depth": 1, "heads": 2},
            ),
            "motion": _row(
                "series", {"type": "series", "length": 40}, {"type": "series_conv", "channels": 2, "width": 32}
            ),
            "points": _row("points", {"type": "points", "count": 64}, {"type": "point_net", "width": 32}),
            "drawing": {
                "payload": "image",
                "out": {
                    "codec": {"type": "image_fsq", "size_px": 8, "grid": 2, "levels": [4, 4], "width": 16},
                    "layout": "flattened",
                },
            },
        },
        "data": {
            "things": {"type": "jsonl", "path": "data", "split": "train"},
            "drawings": {"type": "jsonl", "path": "data", "split": "draw_train"},
            "held_out": {"type": "jsonl", "path": "data", "split": "test"},
            "held_out_drawings": {"type": "jsonl", "path": "data", "split": "draw_test"},
        },
        "stages": [
            {
                "name": "codec",
                "of": "drawing/codec",
                "train": ["drawing/codec"],
                "data": {"drawings": 1.0},
                "steps": steps,
                "batch": 10,
                "lr": 0.003,
            },
            {
                "name": "align",
                "train": ["*/encoder", "*/projector*", "vocab"],
                "data": everything,
                "steps": steps,
                "batch": 8,
                "lr": 0.003,
                "save_every": 2,
                "warm_start": {"steps": steps, "batch": 8, "lr": 0.003},
            },
            {
                "name": "instruct",
                "train": ["*/projector*", "lora", "vocab"],
                "data": everything,
                "steps": steps,
                "batch": 8,
                "save_every": 2,
            },
        ],
        "evaluation": {
            "things": {"data": "held_out", "limit": 20},
            "drawn": {"data": "held_out_drawings", "judge": "drawings", "limit": 8},
        },
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run, sort_keys=False))
    return path


def _row(payload: str, processor: dict[str, object], encoder: dict[str, object]) -> dict[str, object]:
    return {
        "payload": payload,
        "in": {"processor": processor, "encoder": encoder, "projector": [{"type": "pool", "tokens": 2}, "mlp"]},
    }
