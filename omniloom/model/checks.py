"""What a composed model must keep before it is trained: every medium it takes in reaches the language model."""

from __future__ import annotations

from omniloom.errors import ConfigError
from omniloom.model.omni import OmniModel

__all__ = ["require_read"]


def require_read(model: OmniModel) -> None:
    """Refuse media that nothing reads, and an adapter that would never see its own: no answer would depend on them.

    Raises:
        ConfigError: `insert: inject` of a modality or fuser that is not among the `inputs` of an adapter; an input of
            an adapter whose items a fuser always takes.
    """
    fusers = [row for row in model.planner.fusers if row.has_rows]
    taken = {name: row.name for row in fusers if row.when == "any" for name in row.inputs if name not in row.keep}
    for adapter, name in ((key, name) for key, part in model.adapters.items() for name in part.inputs):
        if name in taken:
            raise ConfigError(
                f"adapter {adapter!r} reads {name!r}, but the fuser {taken[name]!r} takes every item of it. Let it "
                f"read {taken[name]!r}, or name {name!r} under the fuser's `keep`."
            )
    read = {name for part in model.adapters.values() if not part.needs_slots for name in part.inputs} | {*taken}
    beside = [name for name, row in model.rows.items() if row.input is not None and row.input.insert == "inject"]
    for name in (*beside, *(row.name for row in fusers if row.insert == "inject")):
        if name not in read:
            raise ConfigError(
                f"{name!r} has `insert: inject`, so it fills no slots, and no adapter reads it inside the layers. "
                "Name it in the `inputs` of one that does, or leave `insert` out."
            )
