"""A judge of generated items: a classifier fitted on real items of a data source says what a generated one shows.

Logistic regression of scikit-learn on the items' plain values, C chosen by cross-validation. Its own score on real
held-out items stands beside every score it gives. Source: classification of generated samples by a model trained on
real ones, GAN-test (arXiv:1807.09499).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from omniloom.errors import DataError
from omniloom.sequence import Item, Sample

__all__ = ["Judge", "label_of"]

_FOLDS = 3


def label_of(sample: Sample) -> str:
    """What an item is, by `meta.label`; the answer's text where there is none."""
    answer = sample.answer()
    return str(sample.meta.get("label") or (answer.text if answer is not None else "")).strip()


class Judge:
    """Fitted on (payload, label) pairs of one modality.

    Raises:
        DataError: fewer than two labels, a label with fewer than three items, or items of different sizes.
    """

    def __init__(self, payloads: Sequence[Any], labels: Sequence[str]) -> None:
        if len(set(labels)) < 2:
            raise DataError(f"a judge needs items of two labels or more, got {sorted(set(labels))}.")
        label, count = min(Counter(labels).items(), key=lambda pair: pair[1])
        if count < _FOLDS:
            raise DataError(f"a judge needs {_FOLDS} items or more of every label, got {count} of {label!r}.")
        model = LogisticRegressionCV(
            Cs=6, cv=_FOLDS, max_iter=2000, use_legacy_attributes=False, l1_ratios=(0.0,), scoring="accuracy"
        )
        self._model = make_pipeline(StandardScaler(), model)
        self._size: int | None = None
        self._model.fit(np.stack([self._values(payload) for payload in payloads]), list(labels))

    def say(self, payload: Any) -> str:
        """What the item shows; "" for one whose size the judge has never seen."""
        values = np.asarray(_array(payload), dtype=np.float64).ravel()
        return str(self._model.predict(values[None])[0]) if values.size == self._size else ""

    def score(self, payloads: Sequence[Any], labels: Sequence[str]) -> float:
        """Share of real items that it names rightly."""
        return float(np.mean([self.say(payload) == label for payload, label in zip(payloads, labels, strict=True)]))

    def _values(self, payload: Any) -> np.ndarray:
        values = np.asarray(_array(payload), dtype=np.float64).ravel()
        if self._size is None:
            self._size = values.size
        if values.size != self._size:
            raise DataError(f"a judge needs items of one size, got {values.size} values after {self._size}.")
        return values


def _array(payload: Any) -> Any:
    """The one array of values a payload holds, by the first field that is one."""
    return next(value for value in vars(payload).values() if isinstance(value, np.ndarray))


def output_item(sample: Sample) -> Item | None:
    """The first item of the sample's answer."""
    answer = sample.answer()
    return next((part for part in answer.parts if isinstance(part, Item)), None) if answer is not None else None
