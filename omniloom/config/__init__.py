"""Room 1: the run file. Reads, extends, checks and writes it; loads neither torch nor transformers.

run = load_run("run.yaml", sets=["stages.0.steps=5"])       one clear ConfigError, or a LoadedRun
problems("run.yaml")                                        everything that is wrong, with file and line
check_parts(run)                                            the parts' options, against their signatures
dump(run.config)                                            the resolved run, which loads back equal
"""

from omniloom.config.checking import Problem
from omniloom.config.kinds import PartSpec
from omniloom.config.loading import LoadedRun, digest, dump, load_run, problems, recipes
from omniloom.config.modality_file import resolve_modality
from omniloom.config.parts import check_parts
from omniloom.config.paths import relocated
from omniloom.config.schema import (
    BackboneConfig,
    ComponentConfig,
    ContextConfig,
    EvaluationConfig,
    InitConfig,
    RunConfig,
    StageConfig,
    WarmStartConfig,
)
from omniloom.config.table import (
    FuserConfig,
    InConfig,
    ModalityConfig,
    OutConfig,
    SlotsConfig,
    TimestampsConfig,
    component_of,
)

__all__ = [
    "BackboneConfig",
    "ComponentConfig",
    "ContextConfig",
    "EvaluationConfig",
    "FuserConfig",
    "InConfig",
    "InitConfig",
    "LoadedRun",
    "ModalityConfig",
    "OutConfig",
    "PartSpec",
    "Problem",
    "RunConfig",
    "SlotsConfig",
    "StageConfig",
    "TimestampsConfig",
    "WarmStartConfig",
    "check_parts",
    "component_of",
    "digest",
    "dump",
    "load_run",
    "problems",
    "recipes",
    "relocated",
    "resolve_modality",
]
