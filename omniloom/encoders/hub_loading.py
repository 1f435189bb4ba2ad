"""The loading of published models, under the name by which encoders know it; see `omniloom.layers.hub_loading`."""

from __future__ import annotations

from omniloom.layers.hub_loading import load_config, load_model, read_config, without_noise

__all__ = ["load_config", "load_model", "read_config", "without_noise"]
