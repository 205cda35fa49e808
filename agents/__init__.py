"""Agents: the table of policies."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl


def learner(name: str, target: str, summary: str) -> Component:
    """An agent of this folder that torch computes."""
    return Component(name, f"agentctl.agents.{target}", summary, ("torch",), extra="torch")


@hookimpl
def agentctl_policies() -> list[Component]:
    return [
        Component(
            "random", "agentctl.agents.random:RandomPolicy", "any legal action, uniformly: the baseline of every figure"
        ),
        learner("ppo", "ppo:PPO", "proximal policy optimisation (Schulman 2017), on pixels or numbers"),
        learner("a2c", "a2c:A2C", "advantage actor-critic (Mnih 2016), synchronous, on pixels or numbers"),
        learner(
            "a3c",
            "a3c:A3C",
            "asynchronous advantage actor-critic (Mnih 2016), by worker processes with shared parameters",
        ),
        learner("dqn", "dqn:DQN", "deep Q-networks (Mnih 2015), up to Rainbow (Hessel 2018)"),
        learner("token_dqn", "token_dqn:TokenDQN", "DQN on the tokens of the last frames, read by a transformer"),
        learner(
            "imagined_actor_critic",
            "imagined_actor_critic:ImaginedActorCritic",
            "IRIS's actor-critic (Micheli 2023): learns in what the run's world model imagines",
        ),
        learner("bc", "bc:BC", "behaviour cloning: does what recorded players did"),
        learner("dagger", "dagger:DAgger", "learns what an expert does in the states it comes to itself (Ross 2011)"),
        Component("saved", "agentctl.agents.saved:SavedPolicy", "the policy of an earlier run, as it plays"),
        Component(
            "dyna_q", "agentctl.agents.dyna_q:DynaQ", "tabular Q-learning that plans in a learned model (Sutton 1990)"
        ),
    ]
