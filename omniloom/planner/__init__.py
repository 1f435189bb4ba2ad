"""Room 5: samples -> plans, on the CPU."""

from omniloom.planner.paths import FuserRow, InputPath, ModalityRow, OutputPath
from omniloom.planner.planner import Planner
from omniloom.planner.template import Template

__all__ = ["FuserRow", "InputPath", "ModalityRow", "OutputPath", "Planner", "Template"]
