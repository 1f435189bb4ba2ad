"""All archetypes, by what they show."""

from __future__ import annotations

from tests.archetypes import systems_simple

SYSTEMS = [*systems_simple.SYSTEMS]
