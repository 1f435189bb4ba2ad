"""Instruments out of a SoundFont 2 file: notes to samples, in plain numpy.

A SoundFont holds recordings and says which of them an instrument plays at which key and velocity, how they are
tuned and looped, and how they swell and fade. Of the format this plays zones, tuning, loops and volume envelopes;
filters, modulators and effects, which colour a sound but do not make it another instrument, are left out.

Source: SoundFont Technical Specification 2.04, sections 4 to 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omniloom.errors import MissingAssetError

__all__ = ["SoundFont"]

# Generators of section 8.1.2 that are read.
_START, _END, _LOOP_START, _LOOP_END = 0, 1, 2, 3
_START_COARSE, _END_COARSE, _LOOP_START_COARSE, _LOOP_END_COARSE = 4, 12, 45, 50
_DELAY, _ATTACK, _HOLD, _DECAY, _SUSTAIN, _RELEASE = 33, 34, 35, 36, 37, 38
_INSTRUMENT, _KEYS, _VELOCITIES, _ATTENUATION = 41, 43, 44, 48
_COARSE_TUNE, _FINE_TUNE, _SAMPLE, _MODES, _SCALE_TUNE, _ROOT = 51, 52, 53, 54, 56, 58

_DEFAULTS = {
    _DELAY: -12000,
    _ATTACK: -12000,
    _HOLD: -12000,
    _DECAY: -12000,
    _RELEASE: -12000,
    _SCALE_TUNE: 100,
    _ROOT: -1,
}
_FULL_RANGE = 0 | 127 << 8
_SAMPLE_HEADER = np.dtype(
    [("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop", "<u4"), ("loop_end", "<u4"), ("rate", "<u4"),
     ("key", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2")]
)  # fmt: skip
_PRESET_HEADER = np.dtype(
    [
        ("name", "S20"),
        ("program", "<u2"),
        ("bank", "<u2"),
        ("bag", "<u2"),
        ("library", "<u4"),
        ("genre", "<u4"),
        ("morphology", "<u4"),
    ]
)
_INSTRUMENT_HEADER = np.dtype([("name", "S20"), ("bag", "<u2")])
_BAG = np.dtype([("gen", "<u2"), ("mod", "<u2")])
_GEN = np.dtype([("oper", "<u2"), ("amount", "<i2")])

_Zone = dict[int, int]


@dataclass(frozen=True)
class _Tables:
    phdr: np.ndarray
    pbag: np.ndarray
    pgen: np.ndarray
    inst: np.ndarray
    ibag: np.ndarray
    igen: np.ndarray
    shdr: np.ndarray


class SoundFont:
    """The instruments of one `.sf2` file."""

    def __init__(self, path: Path) -> None:
        """Raises: MissingAssetError if the file is not a SoundFont 2."""
        data = path.read_bytes()
        if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
            raise MissingAssetError(f"{path} is not a SoundFont 2 file: it starts with {data[:12]!r}.")
        chunks = dict(_chunks(data, 12, len(data)))
        self._samples = np.frombuffer(chunks["smpl"], "<i2")
        types = {
            "phdr": _PRESET_HEADER, "pbag": _BAG, "pgen": _GEN, "inst": _INSTRUMENT_HEADER, "ibag": _BAG, "igen": _GEN,
            "shdr": _SAMPLE_HEADER,
        }  # fmt: skip
        self._tables = _Tables(**{name: np.frombuffer(chunks[name], dtype) for name, dtype in types.items()})

    def programs(self) -> dict[int, str]:
        """Program number -> name of the melodic instruments (bank 0)."""
        rows = [row for row in self._tables.phdr[:-1] if row["bank"] == 0]
        return {int(row["program"]): row["name"].split(b"\0")[0].decode("latin-1").strip() for row in rows}

    def note(
        self, program: int, key: int, velocity: int, duration_s: float, *, rate_hz: int, release_s: float = 0.3
    ) -> np.ndarray:
        """One note of an instrument as mono samples (S,) float32.

        Args:
            program: General MIDI program, from 0.
            key: MIDI key, 69 is 440 Hz.
            velocity: 1 to 127.
            duration_s: how long the key is held; `release_s` more is rendered after it.
        Raises:
            MissingAssetError: there is no such instrument, or none of its zones covers key and velocity.
        """
        zones = self._zones(program, key, velocity)
        length = round((duration_s + release_s) * rate_hz)
        out = np.zeros(length, dtype=np.float64)
        for zone in zones:
            out += self._play(zone, key, length, rate_hz) * _envelope(
                zone, length, round(duration_s * rate_hz), rate_hz
            )
        return (out * (velocity / 127) ** 2).astype(np.float32)

    def _zones(self, program: int, key: int, velocity: int) -> list[_Zone]:
        """The instrument's zones for this key and velocity; what the preset says of them is added."""
        tables = self._tables
        found = np.flatnonzero((tables.phdr["program"][:-1] == program) & (tables.phdr["bank"][:-1] == 0))
        if not len(found):
            raise MissingAssetError(f"the soundfont has no program {program}.")
        zones = []
        for preset in _bag_zones(tables.phdr, tables.pbag, tables.pgen, int(found[0]), _INSTRUMENT, key, velocity):
            for inner in _bag_zones(tables.inst, tables.ibag, tables.igen, preset[_INSTRUMENT], _SAMPLE, key, velocity):
                merged = {**_DEFAULTS, **inner}
                for oper, amount in preset.items():
                    if oper not in (_INSTRUMENT, _KEYS, _VELOCITIES):
                        merged[oper] = merged.get(oper, 0) + amount
                zones.append(merged)
        if not zones:
            raise MissingAssetError(
                f"program {program} of the soundfont does not play key {key} at velocity {velocity}."
            )
        return zones

    def _play(self, zone: _Zone, key: int, length: int, rate_hz: int) -> np.ndarray:
        """The zone's recording at the key's pitch, looped if it says so."""
        header = self._tables.shdr[zone[_SAMPLE]]

        def at(field: str, fine: int, coarse: int) -> int:
            return int(header[field]) + zone.get(fine, 0) + 32768 * zone.get(coarse, 0)

        start, end = at("start", _START, _START_COARSE), at("end", _END, _END_COARSE)
        loop, loop_end = (
            at("loop", _LOOP_START, _LOOP_START_COARSE) - start,
            at("loop_end", _LOOP_END, _LOOP_END_COARSE) - start,
        )
        root = zone[_ROOT] if zone[_ROOT] >= 0 else int(header["key"])
        cents = (
            (key - root) * zone[_SCALE_TUNE]
            + 100 * zone.get(_COARSE_TUNE, 0)
            + zone.get(_FINE_TUNE, 0)
            + int(header["correction"])
        )
        step = 2.0 ** (cents / 1200) * int(header["rate"]) / rate_hz
        wave = self._samples[start:end].astype(np.float64) / 32768.0
        positions = np.arange(length) * step
        is_looped = zone.get(_MODES, 0) & 1 and loop_end > loop
        if is_looped:
            positions = np.where(positions < loop_end, positions, loop + (positions - loop) % (loop_end - loop))
        return np.interp(positions, np.arange(len(wave)), wave, right=0.0)


def _chunks(data: bytes, start: int, end: int) -> list[tuple[str, bytes]]:
    """(name, content) of the RIFF chunks in data[start:end], those inside lists too."""
    found = []
    while start + 8 <= end:
        name, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        if name == b"LIST":
            found += _chunks(data, start + 12, start + 8 + size)
        else:
            found.append((name.decode("latin-1"), data[start + 8 : start + 8 + size]))
        start += 8 + size + size % 2
    return found


def _bag_zones(
    headers: np.ndarray, bags: np.ndarray, gens: np.ndarray, index: int, terminal: int, key: int, velocity: int
) -> list[_Zone]:
    """The zones of header `index` that cover key and velocity; its first is global if it names no `terminal`."""
    base: _Zone = {}
    zones = []
    for bag in range(int(headers["bag"][index]), int(headers["bag"][index + 1])):
        rows = gens[int(bags["gen"][bag]) : int(bags["gen"][bag + 1])]
        zone = {int(row["oper"]): int(row["amount"]) for row in rows}
        if terminal not in zone:
            base = zone
            continue
        zone = {**base, **zone}
        if all(_covers(zone.get(oper, _FULL_RANGE), value) for oper, value in ((_KEYS, key), (_VELOCITIES, velocity))):
            zones.append(zone)
    return zones


def _covers(packed: int, value: int) -> bool:
    return packed & 0xFF <= value <= (packed >> 8) & 0xFF


def _envelope(zone: _Zone, length: int, held: int, rate_hz: int) -> np.ndarray:
    """Delay, attack (linear), hold, decay and release (both linear in decibels); times are 1200 log2 seconds."""

    def seconds(oper: int) -> float:
        return 2.0 ** (zone[oper] / 1200)

    time_s = np.arange(length) / rate_hz
    attack, decay, release = seconds(_ATTACK), seconds(_DECAY), seconds(_RELEASE)
    after = time_s - seconds(_DELAY)
    decayed = after - attack - seconds(_HOLD)
    sustain_db = max(zone.get(_SUSTAIN, 0), 0) / 10
    loss_db = np.minimum(np.maximum(decayed, 0) / decay * 100, sustain_db)
    loss_db = (
        loss_db + np.maximum(time_s - held / rate_hz, 0) / release * 100 + max(zone.get(_ATTENUATION, 0), 0) / 10 * 0.4
    )
    return np.clip(after / attack, 0, 1) * 10 ** (-loss_db / 20)
