"""Arrays out of an old pickled `.npy`, in a process of its own. Run by path; it imports nothing of this package.

Started as `python unpickle_child.py SOURCE.npy TARGET.npz`. A pickle may run any code while it is read; here every
name that it asks for is refused except those that put numpy arrays together again. The arrays are written
without pickle: `X_0`, `X_1`, ... for the items of a list of arrays, and the other entries under their own names.
"""

from __future__ import annotations

import ast
import io
import pickle
import struct
import sys
from typing import Any

import numpy as np

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def latin1(text: str, encoding: str) -> bytes:
    """What stands for `_codecs.encode`, by which old pickles write bytes; other encodings are refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the file encodes bytes as {encoding!r}, expected 'latin1'")
    return text.encode("latin1")


class ArraysOnly(pickle.Unpickler):
    """An unpickler that knows numpy arrays, lists, dictionaries, strings and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`, if it is one of the few that arrays need."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}; only numpy arrays are read")
        if name == "_reconstruct":
            from numpy.core.multiarray import _reconstruct

            return _reconstruct
        return latin1 if name == "encode" else getattr(np, name)


def pickled_part(data: bytes) -> bytes:
    """The pickle within a `.npy` file of one object, behind its header."""
    if data[:6] != b"\x93NUMPY":
        raise ValueError("not a .npy file")
    size_format, start = ("<H", 10) if data[6] == 1 else ("<I", 12)
    (size,) = struct.unpack(size_format, data[8:start])
    header = ast.literal_eval(data[start : start + size].decode("latin-1"))
    if header["descr"] != "|O" or header["shape"] != ():
        raise ValueError(f"expected one pickled object, found {header}")
    return data[start + size :]


def flat(content: dict[str, Any]) -> dict[str, np.ndarray]:
    """The entries as arrays, a list of arrays as one entry for each."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
            arrays.update({f"{name}_{i}": item for i, item in enumerate(value)})
        else:
            arrays[name] = np.asarray(value)
    return arrays


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        loaded = ArraysOnly(io.BytesIO(pickled_part(file.read())), encoding="latin1").load()
    # The outermost array holds one object, the dictionary.
    arrays: dict[str, Any] = dict(flat(loaded.item() if isinstance(loaded, np.ndarray) else loaded))
    np.savez(sys.argv[2], **arrays)
