"""The frame of a run's YAML: its sections and settings, before any component's own options.

A section may be written ``{name: ppo, lr: 3e-4}``, ``ppo``, or ``off``; :func:`expand` writes the short forms out.
"""

from __future__ import annotations

import json
import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agentctl.core.document import Document
from agentctl.core.errors import ConfigError
from agentctl.core.plugins import KINDS, LISTS
from agentctl.core.protocols import BaseConfig
from agentctl.core.strict_yaml import Loc

VERSION = 1


class Section(BaseModel):
    """What every component's block may hold beside its own options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(description="the component, as in `agentctl plugins list`")
    enabled: bool = Field(True, description="false switches the component off")
    fallback: str = Field("", description="the component of the same kind that takes over when this one keeps failing")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class GameSection(Section):
    """The game's block."""

    batch: int = Field(8, gt=0, le=4096, description="games (rows) played in parallel")


class RewardSection(Section):
    """A reward's block."""

    weight: float = Field(1.0, allow_inf_nan=False, description="the factor of its terms in the total")


class PolicySection(Section):
    """The policy's block."""

    expert: dict[str, Any] | None = Field(
        None,
        description="who it learns from: a policy with its options, its name, or the folder of a run",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]},
    )


SECTIONS: dict[str, type[Section]] = {"game": GameSection, "policy": PolicySection, "reward": RewardSection}


class RunSettings(BaseConfig):
    """How long and how carefully a run goes."""

    steps: int = Field(100_000, gt=0, description="game steps over all rows of the batch")
    cycle_steps: int = Field(50_000, gt=0, description="evaluate and save after this many steps")
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    keep_checkpoints: int = Field(2, gt=0, description="how many of the latest checkpoints stay")
    max_errors: int = Field(3, gt=0, description="errors of a component before its fallback takes over for good")


class EvaluationSettings(BaseConfig):
    """Episodes on fixed seeds, beside the random policy on the same seeds."""

    episodes: int = Field(10, gt=0, le=1000, description="episodes per evaluation, played in parallel")
    seed: int = Field(1_000_000, ge=0, lt=2**31, description="of the evaluation games; never a training seed")
    max_steps: int = Field(30_000, gt=0, description="a row is cut after this many steps")
    every: int = Field(1, gt=0, description="evaluate after every so many cycles; the last cycle always")


class PluginSettings(BaseConfig):
    """Which plugins this run takes: files beside the YAML, names to leave out."""

    paths: list[str] = Field([], description="one-file plugins, relative to the YAML")
    disable: list[str] = Field([], description="plugin names to leave out")


SETTINGS: dict[str, type[BaseConfig]] = {
    "run": RunSettings,
    "evaluation": EvaluationSettings,
    "plugins": PluginSettings,
}


class RunConfig(BaseModel):
    """The frame of a run's YAML, its short forms written out. Only the components' own options are unchecked yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    game: GameSection | None = None
    perception: list[Section] = []
    world_model: Section | None = None
    memory: Section | None = None
    reward: list[RewardSection] = []
    policy: PolicySection | None = None
    replay: Section | None = None
    run: RunSettings = RunSettings.model_construct()
    evaluation: EvaluationSettings = EvaluationSettings.model_construct()
    plugins: PluginSettings = PluginSettings.model_construct()

    def sections(self) -> list[tuple[str, Loc, Section]]:
        """Kind, place and block of every section, in the order of the pipeline, the disabled ones too."""
        found: list[tuple[str, Loc, Section]] = []
        for kind in KINDS:
            value = getattr(self, kind)
            if isinstance(value, list):
                found += [(kind, (kind, index), section) for index, section in enumerate(value)]
            elif value is not None:
                found.append((kind, (kind,), value))
        return found


def expand(document: Document) -> None:
    """Write the short forms out: a name is ``{name: ...}``, ``off`` is None, a single item of a list a list."""
    data = document.data
    for kind in [kind for kind in KINDS if kind in data]:
        if kind in LISTS:
            items = _listed(document, kind, data[kind])
            data[kind] = [_named(document, (kind, index), item) for index, item in enumerate(items)]
        else:
            data[kind] = None if _is_off(data[kind]) else _named(document, (kind,), data[kind])
    if isinstance(data.get("policy"), dict) and isinstance(data["policy"].get("expert"), str):
        data["policy"]["expert"] = _expert(document, data["policy"]["expert"])
    if isinstance(data.get("plugins"), list):
        data["plugins"] = {"paths": data["plugins"]}
        _moved(document, ("plugins",), "paths")
    for part in SETTINGS:
        if part in data and data[part] is None:  # a heading whose lines are commented out
            del data[part]


def check_version(document: Document) -> None:
    """Raises ConfigError unless this agentctl can read the document's version."""
    version = document.data.get("version", VERSION)
    if type(version) is int and version == VERSION:
        return
    remedy = f"there is only version {VERSION} yet"
    if isinstance(version, int) and version > VERSION:
        remedy = f"made for a newer agentctl; this one reads {VERSION}: upgrade with `pip install -U game-agentctl`"
    raise ConfigError(f"{document.origin(('version',))}: version {json.dumps(version)}: {remedy}")


def _is_off(value: Any) -> bool:
    """Whether ``value`` is nothing, YAML 1.1's ``off``, or the word as YAML 1.2 reads it."""
    return value is None or value is False or value == "off"


def _named(document: Document, loc: Loc, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    document.origins[(*loc, "name")] = document.origin(loc)
    return {"name": value}


def _expert(document: Document, value: str) -> dict[str, Any]:
    """A policy by its name, or the policy of the run whose folder it is."""
    loc: Loc = ("policy", "expert")
    if not is_run(value):
        if os.sep in value:
            where, remedy = document.origin(loc), "give a run's folder, or the name of a policy"
            raise ConfigError(f"{where}: {json.dumps(value)}: there is no run's folder of that name; {remedy}")
        return dict(_named(document, loc, value))
    document.origins[(*loc, "run")] = document.origin(loc)
    return {"name": "saved", "run": value}


def is_run(path: str) -> bool:
    """Whether there is a run's folder, or one of its checkpoints."""
    return any(os.path.isfile(os.path.join(path, name)) for name in ("config.yaml", "checkpoint.json"))


def _listed(document: Document, kind: str, value: Any) -> list[Any]:
    if _is_off(value):
        return []
    if isinstance(value, list):
        return value
    _moved(document, (kind,), 0)
    return [value]


def _moved(document: Document, loc: Loc, key: str | int) -> None:
    """What stood at ``loc`` now stands one level deeper, under ``key``."""
    below = {at: place for at, place in document.origins.items() if at[: len(loc)] == loc}
    document.origins.update({(*loc, key, *at[len(loc) :]): place for at, place in below.items()})
