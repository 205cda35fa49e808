"""The contracts as assertions, and a plugin manager in which nothing but the plugins under test lives."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from agentctl.core.contracts import Finding, examine, examine_component, examine_plugin
from agentctl.core.plugins import Registry
from agentctl.core.protocols import Setup


def check_component(
    kind: str, component: type[Any] | str, *, setup: Setup | None = None, **options: Any
) -> list[Finding]:
    """Run the contract of ``kind`` on a class, built on ``setup`` (default: one found for it) with ``options``.

    ``component`` may also be the name of an installed one; its table and its import are then checked too.
    """
    if isinstance(component, str):
        return examine_component(Registry(), kind, component)
    return examine(kind, component, options, [] if setup is None else [setup])


def assert_contract(kind: str, component: type[Any] | str, *, setup: Setup | None = None, **options: Any) -> None:
    """Raise AssertionError with every broken promise and what to do about it."""
    assert_ok(check_component(kind, component, setup=setup, **options))


def assert_plugin(registry: Registry, name: str) -> None:
    """The contract of everything in a plugin: its components and its observers."""
    assert_ok(finding for findings in examine_plugin(registry, name).values() for finding in findings)


def assert_ok(findings: Iterable[Finding]) -> None:
    """Raise AssertionError when a finding failed."""
    failed = [finding for finding in findings if finding.status == "failed"]
    if failed:
        lines = [f"{finding.check}: {finding.detail}\n  -> {finding.remedy}" for finding in failed]
        raise AssertionError("\n".join([f"{len(failed)} promises of the contract are broken", *lines]))


def isolated_registry(*modules: ModuleType) -> Registry:
    """A registry of these plugin modules alone, each under its module's name; installed plugins are not looked for."""
    registry = Registry(discover=False)
    for module in modules:
        registry.register(module, module.__name__)
    return registry
