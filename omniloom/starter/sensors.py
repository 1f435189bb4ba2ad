"""Data sets of time series: a smartwatch during exercises, the current that appliances draw."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omniloom.errors import DataError
from omniloom.starter.records import Item, Prompts, chooser, write_array, write_sets

__all__ = ["APPLIANCES", "EXERCISES", "appliance_current", "unpickled_arrays", "watch_imu"]

EXERCISES = {
    "PEN": "pendulum", "ABD": "abduction", "FEL": "forward elevation", "IR": "internal rotation",
    "ER": "external rotation", "TRAP": "trapezius extension", "ROW": "upright row",
}  # fmt: skip
"""The shoulder exercises of the smartwatch recordings, by the abbreviations of the source."""

APPLIANCES = (
    "air conditioner", "fluorescent lamp", "fan", "fridge", "hair dryer", "heater", "light bulb", "laptop",
    "microwave", "vacuum cleaner", "washing machine",
)  # fmt: skip
"""The appliances of PLAID, in the order of its classes."""

_IMU_PROMPTS = Prompts(
    (
        "Which exercise is this?", "What exercise does the watch record?", "Name the movement.",
        "Which shoulder exercise is being done?", "What is the person doing?", "Which movement does the sensor show?",
    ),
    (
        "Tell me the exercise behind these motion data.", "Somebody trains their shoulder; how?",
        "Identify the movement from the accelerometer.", "What would a physiotherapist call this?",
    ),
)  # fmt: skip
_CURRENT_PROMPTS = Prompts(
    (
        "Which appliance is this?", "What device draws this current?", "Name the appliance.",
        "Which machine was switched on?", "What is plugged in?", "Which device does the current belong to?",
    ),
    (
        "Tell me what has just been turned on.", "Identify the household device from its current.",
        "Somebody plugs something in; what is it?", "What electrical appliance produces this signal?",
    ),
)  # fmt: skip

_WINDOW, _STRIDE = 250, 100  # samples at 50 Hz: five seconds, every two seconds
_TEST_SUBJECTS = (3, 6, 9)


def unpickled_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled `.npy`, read by a child process that allows nothing but arrays.

    Raises:
        DataError: the file is something else, or asks for more.
    """
    script = Path(__file__).with_name("unpickle_child.py")
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "arrays.npz"
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", str(script), str(path), str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DataError(
                f"cannot read the arrays of {path}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
            )
        with np.load(target, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def watch_imu(folder: Path, assets: Mapping[str, Path]) -> None:
    """Seven exercises, (250, 6) windows of five seconds of acceleration and turn rate; three of ten people test."""
    arrays = unpickled_arrays(assets["watch-imu"] / "watch_dataset.npy")
    sides: dict[str, list[Item]] = {"train": [], "test": []}
    for recording, (label, subject) in enumerate(zip(arrays["y"].tolist(), arrays["subject"].tolist(), strict=True)):
        series = arrays[f"X_{recording}"]
        exercise = EXERCISES[str(arrays["y_labels"][label])]
        for start in range(0, len(series) - _WINDOW + 1, _STRIDE):
            id_ = f"recording-{recording:03d}-{start:04d}"
            write_array(folder / f"media/{id_}.npy", series[start : start + _WINDOW])
            item = Item(id_, f"subject-{subject}", exercise, (("imu", f"media/{id_}.npy"),), meta={"rate_hz": "50"})
            sides["test" if subject in _TEST_SUBJECTS else "train"].append(item)
    for side, items in sides.items():
        chooser("watch-imu", side).shuffle(items)
    write_sets(folder, "watch-imu", _IMU_PROMPTS, sides["train"], sides["test"])


def read_ts(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """(series (T, C), labels) of a `.ts` file of the time-series archives."""
    series, labels, is_data = [], [], False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if is_data and line.strip():
            *channels, label = line.strip().split(":")
            series.append(np.array([[float(v) for v in channel.split(",")] for channel in channels]).T)
            labels.append(label)
        is_data = is_data or line.strip().lower() == "@data"
    return series, labels


def appliance_current(folder: Path, assets: Mapping[str, Path]) -> None:
    """Eleven appliances by their current, (T, 2): the wave divided by its peak, and the logarithm of that peak.

    The two sides are those of the source, which names no household: the same make may be on both.
    """
    sides = []
    for side in ("train", "test"):
        items = []
        series, labels = read_ts(assets["plaid"] / f"PLAID_{side.upper()}.ts")
        for row, (current, label) in enumerate(zip(series, labels, strict=True)):
            id_ = f"{side}-{row:04d}"
            peak = max(float(np.abs(current).max()), 1e-6)
            wave = np.concatenate([current / peak, np.full_like(current, np.log10(peak))], axis=1)
            write_array(folder / f"media/{id_}.npy", wave)
            items.append(Item(id_, id_, APPLIANCES[int(label)], (("current", f"media/{id_}.npy"),)))
        chooser("appliance-current", side).shuffle(items)
        sides.append(items)
    write_sets(folder, "appliance-current", _CURRENT_PROMPTS, *sides)
