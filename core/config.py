"""One YAML = one run: read, override, validate, resolve, explain.

The frame (sections and run settings) is pydantic; each component's own keys are checked by its nested ``Config``.
All of it is strict: an unknown key or a wrong type is an error with file:line:column, the value and a suggestion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agentctl.core.document import Document, Loc, read_document
from agentctl.core.errors import ConfigError, PluginError, did_you_mean
from agentctl.core.overrides import override, switch_off
from agentctl.core.plugins import KINDS, LISTS, Registry, Switches
from agentctl.core.protocols import BaseConfig

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

    weight: float = Field(1.0, description="the factor of its terms in the total")


SECTIONS: dict[str, type[Section]] = {"game": GameSection, "reward": RewardSection}


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


class RunConfig(BaseModel):
    """The frame of a run's YAML. A section is ``{name: ..., options}``, a bare name, or ``off``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    game: GameSection
    perception: list[Section] = []
    world_model: Section | None = None
    memory: Section | None = None
    reward: list[RewardSection] = []
    policy: Section
    replay: Section | None = None
    run: RunSettings = RunSettings.model_construct()
    evaluation: EvaluationSettings = EvaluationSettings.model_construct()
    plugins: PluginSettings = PluginSettings.model_construct()

    @field_validator(*KINDS, mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        return [_section(item) for item in value] if isinstance(value, list) else _section(value)

    @field_validator("plugins", mode="before")
    @classmethod
    def _list_of_paths(cls, value: Any) -> Any:
        return {"paths": value} if isinstance(value, list) else value

    @model_validator(mode="before")
    @classmethod
    def _single_item(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: _as_list(value) if key in LISTS else value for key, value in data.items()}


@dataclass(frozen=True, slots=True)
class Chosen:
    """One component of a run, its class loaded and its configuration checked."""

    kind: str
    name: str
    loc: Loc
    component_class: type[Any]
    config: BaseModel
    plugin: str
    section: Section
    fallback: Chosen | None = None

    def resolved(self) -> dict[str, Any]:
        """Its block of ``config.yaml``: every default filled in."""
        extra: dict[str, Any] = {
            key: getattr(self.section, key) for key in ("batch", "weight") if hasattr(self.section, key)
        }
        if self.fallback is not None:
            extra["fallback"] = self.fallback.name
        return {"name": self.name, **extra, **self.config.model_dump(mode="json")}


@dataclass(frozen=True, slots=True)
class Composition:
    """A run's configuration, resolved: every component found, imported and checked; nothing built or started."""

    document: Document
    settings: RunConfig
    registry: Registry
    chosen: tuple[Chosen, ...]

    def one(self, kind: str) -> Chosen | None:
        return next((item for item in self.chosen if item.kind == kind), None)

    def many(self, kind: str) -> tuple[Chosen, ...]:
        return tuple(item for item in self.chosen if item.kind == kind)

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain data with every default, as written to ``config.yaml``."""
        data: dict[str, Any] = {"version": VERSION}
        for kind in KINDS:
            blocks = [item.resolved() for item in self.many(kind)]
            data[kind] = blocks if kind in LISTS else (blocks[0] if blocks else False)
        for part in ("run", "evaluation"):
            data[part] = getattr(self.settings, part).model_dump(mode="json")
        switches = self.registry.switches
        data["plugins"] = {"paths": [str(p) for p in switches.paths], "disable": sorted(switches.disable)}
        return data

    @property
    def digest(self) -> str:
        """A hash of the resolved configuration."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()[:16]


def compose(
    path: Path,
    overrides: Sequence[str] = (),
    off: Sequence[str] = (),
    switches: Switches | None = None,
) -> Composition:
    """Read ``path``, apply ``-s`` and ``--off``, and check everything. Raises ConfigError or PluginError."""
    document = read_document(path)
    for text in overrides:
        override(document, text)
    for kind in off:
        switch_off(document, kind)
    return compose_document(document, switches or Switches())


def compose_document(document: Document, switches: Switches) -> Composition:
    """The composition that an (already overridden) document describes."""
    check_version(document)
    settings: RunConfig = validate(RunConfig, document.data, document, ())
    base = document.path.parent if document.path else Path()
    paths = tuple((base / p).resolve() for p in settings.plugins.paths)
    registry = Registry(Switches(paths, frozenset(settings.plugins.disable)).also(switches))
    chosen = [
        choose(registry, kind, section, loc, document)
        for kind in KINDS
        for loc, section in _sections(settings, kind)
        if section.enabled
    ]
    for needed in ("game", "policy"):
        if not any(item.kind == needed for item in chosen):
            raise ConfigError(f"{document.origin((needed,))}: a run needs a {needed}; it cannot be switched off")
    return Composition(document, settings, registry, tuple(chosen))


def choose(
    registry: Registry,
    kind: str,
    section: Section | Mapping[str, Any],
    loc: Loc,
    document: Document | None = None,
) -> Chosen:
    """Find, import and check one component. Raises PluginError or ConfigError naming the YAML line."""
    document = document or Document(None, {})
    block = section if isinstance(section, Section) else _block(kind, section, document, loc)
    try:
        plugin, component = registry.find(kind, block.name)
        component_class = registry.load(kind, block.name)
    except PluginError as error:
        raise PluginError(f"{document.origin((*loc, 'name'))}: {error}") from error
    options = {**component.defaults, **block.options}
    config = validate(component_class.Config, options, document, loc)
    fallback = block.fallback or component.fallback
    stand_in = choose(registry, kind, {"name": fallback}, (*loc, "fallback"), document) if fallback else None
    return Chosen(kind, block.name, loc, component_class, config, plugin.name, block, stand_in)


def validate(model: type[Any], data: Mapping[str, Any], document: Document, loc: Loc) -> Any:
    """``model`` from plain data, strictly. All problems are reported at once, each with its place."""
    try:
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        lines = [_problem(model, problem, document, loc) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{document.origin(loc)}: {error}") from error


def dump(data: Mapping[str, Any]) -> str:
    """Plain data as readable YAML, keys in their order."""
    return str(yaml.safe_dump(dict(data), sort_keys=False, width=100))


def _section(value: Any) -> Any:
    """``ppo`` -> ``{name: ppo}``; ``off`` (YAML's false) and an empty value -> None."""
    if isinstance(value, str):
        return {"name": value}
    return None if value is False else value


def _as_list(value: Any) -> Any:
    if value is None or value is False:
        return []
    return value if isinstance(value, list) else [value]


def _sections(settings: RunConfig, kind: str) -> list[tuple[Loc, Section]]:
    value = getattr(settings, kind)
    if isinstance(value, list):
        return [((kind, index), section) for index, section in enumerate(value)]
    return [((kind,), value)] if value is not None else []


def _block(kind: str, section: Mapping[str, Any], document: Document, loc: Loc) -> Section:
    block: Section = validate(SECTIONS.get(kind, Section), section, document, loc)
    return block


def check_version(document: Document) -> None:
    version = document.data.get("version", VERSION)
    if version != VERSION:
        hint = (
            "upgrade game-agentctl" if isinstance(version, int) and version > VERSION else "run agentctl config migrate"
        )
        raise ConfigError(
            f"{document.origin(('version',))}: version {version!r}; this agentctl reads {VERSION}: {hint}"
        )


def _problem(model: type[BaseModel], problem: Any, document: Document, loc: Loc) -> str:
    """One line of a ConfigError from one pydantic error."""
    inner = tuple(part for part in problem["loc"] if part != "function-before[_section()]")
    here = (*loc, *inner)
    path = ".".join(str(part) for part in here) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{document.origin(here)}: {path}: unknown key{did_you_mean(str(inner[-1]), _known_keys(model, inner))}"
    if problem["type"] == "missing":
        return f"{document.origin(here[:-1])}: {path}: missing; add it"
    given = json.dumps(problem["input"], default=str)
    return f"{document.origin(here)}: {path}: {problem['msg']} (got {given[:80]})"


def _known_keys(model: type[BaseModel], inner: Loc) -> list[str]:
    """The keys allowed where the unknown one stands; descends into nested models."""
    for part in inner[:-1]:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
