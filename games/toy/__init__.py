"""The toys: a partially observed maze in which every noun matters, a ball game for world models, and what is theirs."""

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_games() -> list[Component]:
    return [
        Component(
            "toy/lantern",
            "agentctl.games.toy.game:Lantern",
            "a maze, two doors, and a lantern that tells once",
            expert="toy_expert",
        ),
        Component(
            "toy/bounce",
            "agentctl.games.toy.bounce:Bounce",
            "a ball, a paddle, and no chance after the start: for world models",
            expert="bounce_expert",
        ),
    ]


@hookimpl
def agentctl_perceptions() -> list[Component]:
    return [
        Component("toy_cells", "agentctl.games.toy.perception:Cells", "where the agent stands, what the lantern says"),
    ]


@hookimpl
def agentctl_rewards() -> list[Component]:
    return [
        Component("toy_step_cost", "agentctl.games.toy.reward:StepCost", "-1 for every step: the shorter way wins"),
    ]


@hookimpl
def agentctl_policies() -> list[Component]:
    return [
        Component("toy_expert", "agentctl.games.toy.expert:Expert", "the shortest way to the door the lantern named"),
        Component(
            "bounce_expert",
            "agentctl.games.toy.bounce_expert:BounceExpert",
            "goes where the ball of toy/bounce will come down",
        ),
    ]
