"""World models: percept -> latent, and what comes next. One file per model."""

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_world_models() -> list[Component]:
    return [
        Component("tabular", "agentctl.world_models.tabular:Tabular", "counts what follows each state and action"),
    ]
