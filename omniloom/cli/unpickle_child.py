"""Tensors out of a pickled checkpoint, in a process of its own. Run by path; it imports nothing of this package.

Started as `python -I unpickle_child.py SOURCE TARGET.safetensors KEY`. Only weights are read: torch's restricted
unpickler refuses every other name. The last line of standard error says what is wrong.
"""

import json
import pickle
import sys
from typing import Any

# Where published checkpoints keep their tensors, beside optimizer states and settings.
_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
# Address space beside what the file's own bytes may take, for torch itself.
_SPARE_BYTES = 16 << 30


def main(source: str, target: str, key: str) -> None:
    """Read, choose, write."""
    _bound_memory(source)
    import torch
    from safetensors.torch import save_file

    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = next((word for line in str(error).splitlines() for word in [line] if "GLOBAL" in word), "")
        raise SystemExit(
            f"it is no checkpoint of tensors alone, and nothing else is read. {name.strip()}".strip()
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, MemoryError, OSError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise SystemExit(f"it cannot be read: {lines[0]}") from None
    tensors = _tensors(content, key, torch.Tensor)
    # Tensors that share memory cannot stand in one file; each gets its own.
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, target)
    print(json.dumps({"tensors": len(tensors), "parameters": sum(value.numel() for value in tensors.values())}))


def _bound_memory(source: str) -> None:
    """A small file may claim to hold terabytes."""
    import os

    try:
        import resource
    except ModuleNotFoundError:
        return  # a system without limits of address space; the size of the file still bounds what torch maps
    limit = _SPARE_BYTES + 8 * os.path.getsize(source)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _tensors(content: Any, key: str, kind: type) -> dict[str, Any]:
    """The one mapping of names to tensors that is meant."""
    sets = {name: value for name, value in content.items() if _is_set(value, kind)} if isinstance(content, dict) else {}
    if key:
        if key not in sets:
            raise SystemExit(f"it has no set of tensors {key!r}. Known: {', '.join(map(str, sets)) or 'none'}.")
        return dict(sets[key])
    if _is_set(content, kind):
        return dict(content)
    known = [name for name in _KEYS if name in sets] or list(sets)
    if len(known) != 1:
        raise SystemExit(
            f"it holds {len(known)} sets of tensors ({', '.join(map(str, known)) or 'none'}). Choose one by --key."
        )
    return dict(sets[known[0]])


def _is_set(value: Any, kind: type) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(item, kind) for name, item in value.items())
    )


if __name__ == "__main__":
    main(*sys.argv[1:4])
