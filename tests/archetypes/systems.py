"""All archetypes, by what they show."""

from __future__ import annotations

from tests.archetypes import (
    systems_fused,
    systems_inside,
    systems_mixed,
    systems_queries,
    systems_qwen,
    systems_simple,
    systems_vision,
)

SYSTEMS = [
    *systems_simple.SYSTEMS,
    *systems_vision.SYSTEMS,
    *systems_queries.SYSTEMS,
    *systems_inside.SYSTEMS,
    *systems_qwen.SYSTEMS,
    *systems_fused.SYSTEMS,
    *systems_mixed.SYSTEMS,
]
