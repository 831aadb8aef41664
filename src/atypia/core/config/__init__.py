"""One frozen configuration behind the Python API, the YAML presets and ``key=value`` options.

A preset names every choice of a training; ``atypia train ... optim.epochs=30`` changes one.
Unknown keys and wrong values are all reported together.
"""

from atypia.core.config.config_files import (
    any_config_from_tree,
    config_from_tree,
    load_any_config,
    load_config,
    mil_config,
    presets,
)
from atypia.core.config.run_configs import (
    AnyConfig,
    HybridConfig,
    MilConfig,
    MitosisConfig,
    RulesConfig,
    StackConfig,
    TrainConfig,
)
from atypia.core.config.settings import (
    LEAK,
    AugmentConfig,
    InputConfig,
    InputSpec,
    JoinKind,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PoolingKind,
    StackKind,
    Stages,
    TargetConfig,
    UnlabelledConfig,
)

__all__ = [
    "LEAK",
    "AnyConfig",
    "AugmentConfig",
    "HybridConfig",
    "InputConfig",
    "InputSpec",
    "JoinKind",
    "LossConfig",
    "MilConfig",
    "MitosisConfig",
    "ModelConfig",
    "OptimConfig",
    "PoolingKind",
    "RulesConfig",
    "StackConfig",
    "StackKind",
    "Stages",
    "TargetConfig",
    "TrainConfig",
    "UnlabelledConfig",
    "any_config_from_tree",
    "config_from_tree",
    "load_any_config",
    "load_config",
    "mil_config",
    "presets",
]
