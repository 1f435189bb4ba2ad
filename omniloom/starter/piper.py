"""A neural voice: text to speech with a packaged Piper model.

Piper is VITS behind ONNX: phonemes in, samples out, in one pass. The phonemes come from eSpeak NG as they did in
training; here they come out of its own process, so that no GPL code is loaded.

Source: VITS (arXiv:2106.06103); ids as in Piper: `^`, then each symbol, each followed by `_`, then `$`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from omniloom.errors import CheckpointError, MissingAssetError
from omniloom.starter import espeak

__all__ = ["Voice"]

_START, _END, _PAD = "^", "$", "_"
_PAUSE_S = 0.25  # between sentences
_CHARACTER_LIMIT = 10_000


class Voice:
    """A Piper voice from its `.onnx` and `.onnx.json` files.

    Attributes:
        rate_hz: samples a second of what `say` returns.
    """

    def __init__(self, onnx_path: Path, *, length_scale: float = 1.0, noise: float = 0.0) -> None:
        """
        Args:
            onnx_path: the model; its settings lie beside it as `NAME.onnx.json`.
            length_scale: 1 is the voice's own pace, 2 half as fast.
            noise: 0 says the same text the same way each time; 1 is the variation the voice was published with, which
                Whisper understands a little less often.
        Raises:
            MissingAssetError: onnxruntime is not installed.
            CheckpointError: the settings are not those of an eSpeak-phoneme Piper voice.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingAssetError(
                "the packaged voice needs `onnxruntime`. Install it: pip install onnxruntime."
            ) from error
        settings = json.loads(onnx_path.with_name(onnx_path.name + ".json").read_text(encoding="utf-8"))
        if settings.get("phoneme_type", "espeak") != "espeak" or settings["num_speakers"] != 1:
            raise CheckpointError(f"{onnx_path} is not a voice of one speaker over eSpeak phonemes.")
        self.length_scale = length_scale
        self.noise = noise
        self.rate_hz: int = settings["audio"]["sample_rate"]
        self._ids: dict[str, list[int]] = settings["phoneme_id_map"]
        self._accent: str = settings["espeak"]["voice"]
        self._scales = settings["inference"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])

    def say(self, text: str) -> tuple[np.ndarray, int]:
        """Text to (samples (S,) float32 in -1..1, rate_hz); text without a letter or digit gives no samples.

        Variation is drawn anew at each call unless `noise` is 0.
        """
        if len(text) > _CHARACTER_LIMIT:
            raise ValueError(f"text has {len(text)} characters, expected at most {_CHARACTER_LIMIT}. Say it in parts.")
        spoken = [
            self._sentence(sentence) for sentence in re.split(r"(?<=[.!?])\s+|\n+", text) if re.search(r"\w", sentence)
        ]
        pause = np.zeros(round(_PAUSE_S * self.rate_hz), dtype=np.float32)
        parts = [part for sentence in spoken for part in (pause, sentence)][1:]
        return (np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)), self.rate_hz

    def phonemes(self, sentence: str) -> str:
        """A sentence in IPA with its punctuation, which the voice reads as pauses and melody."""
        pieces = re.split(r"([.,;:!?]+(?=\s|$))", sentence)
        spoken = [espeak.phonemes(words, self._accent) if re.search(r"\w", words) else "" for words in pieces[::2]]
        marks = [mark[:1] for mark in pieces[1::2]] + [""]
        return " ".join(clause + mark for clause, mark in zip(spoken, marks, strict=True) if clause)

    def _sentence(self, sentence: str) -> np.ndarray:
        symbols = [s for s in unicodedata.normalize("NFD", self.phonemes(sentence)) if s in self._ids]
        ids = [i for s in (_START, *symbols) for i in (*self._ids[s], *self._ids[_PAD])] + self._ids[_END]
        scales = [
            self._scales["noise_scale"] * self.noise,
            self._scales["length_scale"] * self.length_scale,
            self._scales["noise_w"] * self.noise,
        ]
        (sound,) = self._session.run(
            None,
            {
                "input": np.array([ids], dtype=np.int64),
                "input_lengths": np.array([len(ids)], dtype=np.int64),
                "scales": np.array(scales, dtype=np.float32),
            },
        )
        return np.clip(sound.reshape(-1), -1.0, 1.0).astype(np.float32)
