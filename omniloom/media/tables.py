"""Arrays of numbers in files: .npy, .npz and text tables, with own header checks and nothing that could unpickle.

The header of a .npy file is read as a literal of three keys; dtypes other than plain booleans, integers and floats are
refused, and the bytes must be exactly as many as shape and dtype say before an array is made over them.
"""

from __future__ import annotations

import ast
import io
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..errors import MediaError
from .codes import foreign_decoder, invalid, too_large

__all__ = ["read_npy", "read_npz", "read_table", "text_lines"]

_PLAIN_DTYPE = re.compile(r"[<>=|]?[biuf]\d{1,2}")
_HEADER_BYTES = 4096
_MEMBERS = 16
_BROKEN_NPY = "the .npy header is broken or its size is not that of the data. Save it again."
_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class _Header:
    """What a .npy file declares, checked: its array has `size` bytes from byte `start` on."""

    dtype: np.dtype
    shape: tuple[int, ...]
    is_fortran: bool
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _read_header(content: bytes, kind: str, limit_values: int) -> _Header:
    broken = MediaError(invalid(kind), _BROKEN_NPY)
    width = {b"\x01": 2, b"\x02": 4, b"\x03": 4}.get(content[6:7])
    if width is None or not content.startswith(b"\x93NUMPY"):
        raise broken
    start = 8 + width + int.from_bytes(content[8 : 8 + width], "little")
    if start > len(content) or start > _HEADER_BYTES:
        raise broken
    try:
        header = ast.literal_eval(content[8 + width : start].decode("latin-1").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise broken from None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise broken
    descr, shape, is_fortran = header["descr"], header["shape"], header["fortran_order"]
    if not isinstance(descr, str) or "O" in descr:
        raise MediaError("pickle_refused", "the .npy file holds objects, not plain numbers. Save float32 values.")
    is_shape = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape) and len(shape) <= 8
    if not _PLAIN_DTYPE.fullmatch(descr) or not is_shape or not isinstance(is_fortran, bool):
        raise broken
    if math.prod(shape) > limit_values:
        message = f"the .npy file declares {math.prod(shape)} values; at most {limit_values} are read. Send fewer."
        raise MediaError(too_large(kind), message)
    with foreign_decoder(invalid(kind), _BROKEN_NPY):
        return _Header(np.dtype(descr), shape, is_fortran, start)


def read_npy(content: bytes, kind: str, limit_values: int) -> np.ndarray:
    """The array of a .npy file, versions 1 to 3.

    Raises:
        MediaError: `pickle_refused` for an array of objects, the kind's too-large code from the declared shape alone,
            its invalid code otherwise.
    Source: NEP 1, "A simple file format for NumPy arrays".
    """
    header = _read_header(content, kind, limit_values)
    if header.size != len(content) - header.start:
        raise MediaError(invalid(kind), _BROKEN_NPY)
    values = np.frombuffer(content, header.dtype, offset=header.start) if header.size else np.empty(0, header.dtype)
    return values.reshape(header.shape, order="F" if header.is_fortran else "C")


def read_npz(
    content: bytes, kind: str, names: tuple[str, ...], limit_bytes: int, limit_values: int
) -> dict[str, np.ndarray]:
    """Those arrays of a .npz file whose names are in `names`; the others are not unpacked.

    What is declared unpacked is held against `limit_bytes` first, and nothing is unpacked beyond what the array
    declares.
    """
    broken = "the .npz file is broken, encrypted or packed by another method than deflate. Save it again."
    found: dict[str, np.ndarray] = {}
    with foreign_decoder(invalid(kind), broken), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        wanted = [member for member in members if member.filename in {f"{name}.npy" for name in names}]
        if len(members) > _MEMBERS or sum(member.file_size for member in wanted) > limit_bytes:
            message = f"the .npz file holds over {_MEMBERS} arrays or {limit_bytes} unpacked bytes. Send less."
            raise MediaError(too_large(kind), message)
        if len({member.filename for member in wanted}) != len(wanted):
            raise MediaError(invalid(kind), "the .npz file holds one name twice. Save it again.")
        for member in wanted:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise MediaError(invalid(kind), broken)
            with archive.open(member) as file:
                # The archive's own sizes may lie: the array's header is read first, then as many bytes as it declares.
                head = file.read(_HEADER_BYTES)
                header = _read_header(head, kind, limit_values)
                rest = file.read(max(0, header.start + header.size - len(head)) + 1)
            found[member.filename.removesuffix(".npy")] = read_npy(head + rest, kind, limit_values)
    return found


def read_table(content: bytes, kind: str, limit_values: int) -> np.ndarray:
    """Rows of numbers, float32 (rows, columns), from text with commas, semicolons, tabs or blanks between them.

    Lines that start with '#' or '//' and empty lines are skipped; one line of names before the first numbers is skipped
    too. Every row must have the same number of columns and no empty cell.

    Raises:
        MediaError: the kind's too-large or invalid code.
    """
    message = "not a table of numbers: rows of equally many numbers, no empty cells, are expected."
    broken = MediaError(invalid(kind), message)
    head = next((line for line in text_lines(content, kind) if _is_row(line)), None)
    if head is None:
        raise broken
    separator = next((mark for mark in (",", ";", "\t") if mark in head), None)
    columns = len(head.split(separator))
    if columns > limit_values:
        raise broken
    lines: Iterator[str] = (line for line in text_lines(content, kind) if _is_row(line))
    if not _is_numbers(head.split(separator)):
        next(lines)
    first = next(lines, None)
    if first is None:
        raise broken
    lines = chain([first], lines)
    most_rows = limit_values // columns
    with foreign_decoder(invalid(kind), message):
        # The parser is fed line by line and grows one float32 array: memory follows the numbers, not the text.
        values = np.loadtxt(lines, np.float32, comments=None, delimiter=separator, ndmin=2, max_rows=most_rows + 1)
    if len(values) > most_rows:
        raise MediaError(too_large(kind), f"the table holds over {limit_values} numbers, the limit. Send fewer rows.")
    return values


def text_lines(content: bytes, kind: str) -> Iterator[str]:
    """The lines of UTF-8 text, one at a time, so that memory follows the longest line and not the whole text.

    Raises:
        MediaError: the kind's invalid code: not UTF-8, or a line of over `_LINE_BYTES`.
    """
    for line in io.BytesIO(content.removeprefix(b"\xef\xbb\xbf")):
        if len(line) > _LINE_BYTES:
            raise MediaError(invalid(kind), f"a line of the text is longer than {_LINE_BYTES} bytes. Break it up.")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            raise MediaError(invalid(kind), "the text is not UTF-8. Save it so.") from None


def _is_row(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith(("#", "//"))


def _is_numbers(cells: list[str]) -> bool:
    try:
        [float(cell) for cell in cells]
    except ValueError:
        return False
    return True
