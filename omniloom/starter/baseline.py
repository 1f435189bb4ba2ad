"""What a plain classifier reaches on a packaged data set: the yardstick beside a model's score.

scikit-learn's logistic regression on simple features (pixels, log-mel frames, statistics and spectra of series,
statistics of points), its C chosen by cross-validation over groups of the training side, scored once on the test.
A set on which this is near chance would teach nothing about a model; one on which it is near 1 tells little more.
"""

from __future__ import annotations

import json
import wave
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from omniloom.errors import DataError
from omniloom.starter.datasets import DATASETS, build

__all__ = ["Baseline", "features", "measure"]

_CS = (0.003, 0.03, 0.3, 3.0)
_FOLDS = 3
_FRAMES, _BANDS = 20, 26


class Baseline(NamedTuple):
    """`accuracy` on the `test` items; `majority` is the share of the most frequent label among them."""

    name: str
    accuracy: float
    majority: float
    classes: int
    train: int
    test: int


def measure(name: str) -> Baseline:
    """The baseline of data set `name`, which is built where it is not there yet. Takes seconds to two minutes.

    Raises:
        DataError: the set has no media to classify.
    """
    folder = build(name)
    train, test = (_records(folder, split) for split in ("train", "test"))
    if not _paths(train[0]):
        raise DataError(f"data set {name!r} is text alone; there is nothing for a classifier of media to learn.")
    labels = [record["meta"]["label"] for record in test]
    if DATASETS[name].sets:
        predicted = _by_equality(folder, train, test)
    elif "question" in train[0]["meta"]:
        predicted = _by_question(folder, train, test)
    else:
        predicted = _classified(folder, train, test, [r["meta"]["label"] for r in train])
    hits = np.mean([p == label for p, label in zip(predicted, labels, strict=True)])
    majority = Counter(labels).most_common(1)[0][1] / len(labels)
    return Baseline(name, float(hits), majority, len(set(labels)), len(train), len(test))


def _records(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def _paths(record: dict) -> dict[str, str]:
    return {
        part["type"]: part["path"] for message in record["messages"] for part in message["content"] if "path" in part
    }


def _classified(
    folder: Path, train: list[dict], test: list[dict], labels: list[str], *, modality: str = ""
) -> list[str]:
    """Labels of the test records by the first medium, or by that of `modality`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(labels)) == 1:
        return [labels[0]] * len(test)
    of = {
        r["id"]: features(folder / (_paths(r)[modality] if modality else next(iter(_paths(r).values()))))
        for r in train + test
    }
    seen = np.stack([of[record["id"]] for record in train])
    groups = [record["group"] for record in train]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    search = GridSearchCV(model, {"logisticregression__C": _CS}, cv=GroupKFold(min(_FOLDS, len(set(groups)))))
    search.fit(seen, labels, groups=groups)
    return list(search.predict(np.stack([of[record["id"]] for record in test])))


def _by_question(folder: Path, train: list[dict], test: list[dict]) -> list[str]:
    """One classifier for each question; a question without training records gets the most frequent answer."""
    most = Counter(record["meta"]["label"] for record in train).most_common(1)[0][0]
    predicted = {record["id"]: most for record in test}
    for question in sorted({record["meta"]["question"] for record in test}):
        known = [record for record in train if record["meta"]["question"] == question]
        asked = [record for record in test if record["meta"]["question"] == question]
        if len({r["group"] for r in known}) >= _FOLDS:
            answers = _classified(folder, known, asked, [r["meta"]["label"] for r in known])
            predicted.update(zip((r["id"] for r in asked), answers, strict=True))
    return [predicted[record["id"]] for record in test]


def _by_equality(folder: Path, train: list[dict], test: list[dict]) -> list[str]:
    """Yes where the classifiers of the two media agree; each learns from its own medium's label."""
    first, second = (
        _classified(folder, train, test, [r["meta"][modality] for r in train], modality=modality)
        for modality in _paths(train[0])
    )
    return ["yes" if a == b else "no" for a, b in zip(first, second, strict=True)]


def features(path: Path) -> np.ndarray:
    """One vector of fixed length from a media file of a packaged set."""
    if path.suffix == ".png":
        image = Image.open(path)
        side = min(image.width, 28)
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float64).ravel() / 255
    if path.suffix == ".wav":
        return _sound(path)
    values = np.load(path, allow_pickle=False).astype(np.float64)
    return _points(values) if "points" in path.parts[-3] else _series(values)


def _sound(path: Path) -> np.ndarray:
    """Log-mel energies of the whole sound in 20 steps of time, and its length."""
    with wave.open(str(path)) as file:
        rate_hz = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    window, hop = 400, 160
    starts = np.arange(0, max(len(samples) - window, 1), hop)
    frames = np.stack([np.pad(samples[s : s + window], (0, max(0, int(s) + window - len(samples)))) for s in starts])
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2
    mel = np.log(power @ _mel_bands(power.shape[1], rate_hz).T + 1e-6)
    steps = np.linspace(0, len(mel) - 1, _FRAMES)
    resampled = np.stack([np.interp(steps, np.arange(len(mel)), band) for band in mel.T])
    return np.concatenate([(resampled - resampled.mean()).ravel(), [len(samples) / rate_hz]])


def _mel_bands(bins: int, rate_hz: int) -> np.ndarray:
    edges_hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate_hz / 2 / 700), _BANDS + 2) / 2595) - 1)
    hz = np.linspace(0, rate_hz / 2, bins)
    rise = (hz - edges_hz[:-2, None]) / (edges_hz[1:-1] - edges_hz[:-2])[:, None]
    fall = (edges_hz[2:, None] - hz) / (edges_hz[2:] - edges_hz[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall))


def _series(values: np.ndarray) -> np.ndarray:
    """Of every channel: moments, quantiles, mean step, and a coarse log spectrum."""
    spectrum = np.abs(np.fft.rfft((values - values.mean(0)) * np.hanning(len(values))[:, None], 512, axis=0))[1:257]
    bands = np.log(spectrum.reshape(32, 8, -1).mean(1) + 1e-6)
    steps = np.abs(np.diff(values, axis=0)).mean(0)
    return np.concatenate(
        [values.mean(0), values.std(0), steps, *np.quantile(values, (0.05, 0.5, 0.95), axis=0), bands.ravel()]
    )


def _points(values: np.ndarray) -> np.ndarray:
    """How many, how far apart, how large, and moments and histograms of the features."""
    places, rest = values[:, :3], values[:, 3:]
    radius = np.linalg.norm(places, axis=1)
    between = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(places), 1)]
    shares = [np.histogram(x, bins=12, range=(0, max(float(x.max()), 1e-6)))[0] / len(x) for x in (radius, between)]
    height = np.histogram(places[:, 1], bins=12)[0] / len(places)
    spread = np.sort(np.linalg.eigvalsh(np.cov(places.T)))
    counts = np.histogram(rest[:, 0], bins=[-2, -0.5, 0.5, 1.5, 6.5, 7.5, 8.5, 9.5, 16.5, 17.5, 99])[0]
    return np.concatenate(
        [[len(values), radius.max()], np.sqrt(np.maximum(spread, 0)), np.ptp(places, axis=0), rest.mean(0), rest.std(0),
         np.abs(rest).mean(0), *shares, height, counts]
    )  # fmt: skip
