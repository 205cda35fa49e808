"""Agents: the table of policies."""

from __future__ import annotations

from agentctl.core.hooks import Component, hookimpl


@hookimpl
def agentctl_policies() -> list[Component]:
    return [
        Component(
            "random", "agentctl.agents.random:RandomPolicy", "any legal action, uniformly: the baseline of every figure"
        ),
        Component(
            name="ppo",
            target="agentctl.agents.ppo:PPO",
            summary="proximal policy optimisation (Schulman 2017), on pixels or numbers",
            requires=("torch",),
            extra="torch",
        ),
        Component(
            name="a2c",
            target="agentctl.agents.a2c:A2C",
            summary="advantage actor-critic (Mnih 2016), synchronous, on pixels or numbers",
            requires=("torch",),
            extra="torch",
        ),
        Component(
            name="a3c",
            target="agentctl.agents.a3c:A3C",
            summary="asynchronous advantage actor-critic (Mnih 2016), by worker processes with shared parameters",
            requires=("torch",),
            extra="torch",
        ),
        Component(
            name="dqn",
            target="agentctl.agents.dqn:DQN",
            summary="deep Q-networks (Mnih 2015), up to Rainbow (Hessel 2018)",
            requires=("torch",),
            extra="torch",
        ),
        Component(
            name="bc",
            target="agentctl.agents.bc:BC",
            summary="behaviour cloning: does what recorded players did",
            requires=("torch",),
            extra="torch",
        ),
        Component(
            name="dagger",
            target="agentctl.agents.dagger:DAgger",
            summary="learns what an expert does in the states it comes to itself (Ross 2011)",
            requires=("torch",),
            extra="torch",
        ),
        Component("saved", "agentctl.agents.saved:SavedPolicy", "the policy of an earlier run, as it plays best"),
        Component(
            "dyna_q", "agentctl.agents.dyna_q:DynaQ", "tabular Q-learning that plans in a learned model (Sutton 1990)"
        ),
    ]
