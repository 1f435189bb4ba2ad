"""Media in and out: typed payloads, one IO gateway, transforms in plain torch, and writers.

- `load(source, kind)` gives an Image, Audio, Video, Points, Series or Map, or a MediaError: every path in, with limits,
  without network and without pickle.
- `transforms` turns payloads into tensors for encoders.
- `save` and `to_data_uri` turn payloads into files, reports and answers.
"""

from __future__ import annotations

from .codes import CODES
from .gateway import KINDS, Kind, load, register_kind
from .limits import Limits, check_parts
from .options import LoadOptions
from .payloads import Audio, Image, Map, Payload, Points, Series, Video
from .write import audio_to_wav_bytes, image_to_png_bytes, save, suffix_of, to_data_uri

__all__ = [
    "CODES",
    "KINDS",
    "Audio",
    "Image",
    "Kind",
    "Limits",
    "LoadOptions",
    "Map",
    "Payload",
    "Points",
    "Series",
    "Video",
    "audio_to_wav_bytes",
    "check_parts",
    "image_to_png_bytes",
    "load",
    "register_kind",
    "save",
    "suffix_of",
    "to_data_uri",
]
