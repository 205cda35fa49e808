"""World models: percept -> latent, and what comes next. One file per model."""

from agentctl.core.hooks import Component, hookimpl


def learner(name: str, target: str, summary: str) -> Component:
    """A model of this folder that torch computes."""
    return Component(name, f"agentctl.world_models.{target}", summary, ("torch",), extra="torch")


@hookimpl
def agentctl_world_models() -> list[Component]:
    return [
        Component("tabular", "agentctl.world_models.tabular:Tabular", "counts what follows each state and action"),
        learner("vqvae", "vqvae:VQVAE", "names pictures by a grid of tokens"),
        learner("vqvae2", "vqvae2:VQVAE2", "the same by two grids, a coarse one and a fine one"),
        learner(
            "token_transformer",
            "token_transformer:TokenTransformer",
            "foresees the next frame's tokens from the last frames: v1.0, v1.1, v1.2, v3",
        ),
        learner("iris", "iris:Iris", "foresees token after token in one sequence of frames and actions (Micheli 2023)"),
    ]
