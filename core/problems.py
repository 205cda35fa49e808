"""Strict validation by pydantic, and its complaints as sentences a user needs: place, value, remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from agentctl.core.document import Document
from agentctl.core.errors import ConfigError, did_you_mean
from agentctl.core.frame import SETTINGS
from agentctl.core.strict_yaml import Loc, Refused, parse

MAX_PROBLEMS = 20
"""So many are told at once."""

MUST = {
    "int": "be a whole number",
    "float": "be a number",
    "string": "be text",
    "bool": "be true or false",
    "list": "be a list such as [a, b]",
    "tuple": "be a list such as [a, b]",
    "set": "be a list such as [a, b]",
    "frozen": "be a list such as [a, b]",
    "dict": "be a block of keys",
    "model": "be a block of keys",
    "dataclass": "be a block of keys",
    "none": "be empty",
    "finite": "be a finite number",
}
"""What a value must be, by the first word of pydantic's error type."""

HOMES = {
    **{
        key: f"it stands under {part}: {part}.{key}"
        for part in reversed(SETTINGS)
        for key in SETTINGS[part].model_fields
    },
    "batch": "only the game has a batch: game.batch",
    "weight": "only rewards have a weight",
}
"""Keys of the frame that people also write elsewhere, and where they belong."""


def validate(
    model: type[Any], data: Mapping[str, Any], document: Document, loc: Loc, *, beside: Iterable[str] = ()
) -> Any:
    """``model`` from plain data, strictly; ``loc`` is where the data stands in the document.

    ``beside`` names the keys that may stand there too and were checked before. Raises ConfigError with every problem at
    once, one line each: place, path, what is wrong with which value, and what to do.
    """
    try:
        text = json.dumps(data)
    except (TypeError, ValueError) as error:  # only from Python; a file's data is always plain
        raise ConfigError(f"{document.origin(loc)}: {shown(loc)}: not plain data: {error}") from error
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = list(_by_place(error, data).items())
        lines = [_line(model, here, group, document, loc, beside) for here, group in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            lines.append(f"... and {len(problems) - MAX_PROBLEMS:,} more")
        raise ConfigError("\n".join(lines)) from error


def shown(loc: Loc) -> str:
    """``reward.0.weight``; a word that could confuse a terminal is quoted."""
    return ".".join(word if word.isprintable() else repr(word) for word in map(str, loc))


def _by_place(error: ValidationError, data: Any) -> dict[Loc, list[Any]]:
    """The problems by the place in the data they speak of: the members of a union complain one by one."""
    found: dict[Loc, list[Any]] = {}
    for problem in error.errors(include_url=False):
        found.setdefault(_real_place(problem, data), []).append(problem)
    return found


def _real_place(problem: Any, data: Any) -> Loc:
    """The problem's path without what pydantic adds to it: names of union members, validators and the like."""
    loc: list[str | int] = []
    place, last = data, len(problem["loc"]) - 1
    for index, part in enumerate(problem["loc"]):
        inside = place if isinstance(place, dict) else range(len(place)) if isinstance(place, list) else ()
        if part in inside:
            loc.append(part)
            place = place[part]
        elif index == last and problem["type"] == "missing":
            loc.append(part)
    return tuple(loc)


def _line(
    model: type[BaseModel], inner: Loc, group: list[Any], document: Document, loc: Loc, beside: Iterable[str]
) -> str:
    here, first = (*loc, *inner), group[0]
    where = f"{document.origin(here)}: {shown(here) or 'the file'}"
    if first["type"] == "extra_forbidden":
        known = [*_known_keys(model, inner[:-1]), *(beside if len(inner) == 1 else ())]
        home = HOMES.get(str(here[-1]), "")
        return f"{where}: unknown key{home and f': {home}'}{did_you_mean(str(inner[-1]), known)}"
    if first["type"] == "missing":
        what = f"which {here[0]}? `agentctl plugins list` names them" if here[-1] == "name" else "add it"
        return f"{where}: missing; {what}"
    for problem in group:
        if problem["type"] in ("value_error", "assertion_error"):
            return f"{where}: {problem['ctx']['error']}"
    wants = list(dict.fromkeys(_wants(problem) for problem in group))
    want = " or ".join([wants[0], *(other.removeprefix("be ") for other in wants[1:])])
    return f"{where} must {want}, not {_given(first['input'])}{_hint(first)}"


def _wants(problem: Any) -> str:
    """``be a whole number``, ``be greater than 0``, ``be 'gray' or 'rgb'``."""
    kind: str = problem["type"]
    if problem.get("ctx", {}).get("class_name", "").endswith("Section"):
        return "be a component's name or a block with one"
    if kind.endswith(("_type", "_parsing", "_from_float", "_parsing_size", "_number", "_required")):
        plain = MUST.get(kind.partition("_")[0])
        if plain:
            return plain
    return re.sub(r"^\w+ should | after validation.*", "", problem["msg"])


def _given(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    text = text if len(text) <= 60 else f"{text[:60]}..."
    return text if text.isprintable() else repr(text)


def _hint(problem: Any) -> str:
    """The remedy for what most often is behind a wrong value."""
    kind, value = problem["type"], problem["input"]
    if kind == "string_type" and isinstance(value, bool):
        return "; put it in quotes: YAML reads on, off, yes and no as true and false"
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if kind.startswith(("int_", "float_", "bool_")) and isinstance(value, str) and _is_plain(value):
        return "; remove the quotes"
    if kind == "literal_error" and isinstance(value, str):
        close = did_you_mean(value, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
        return close if "did you mean" in close else ""
    return ""


def _is_plain(text: str) -> bool:
    """Whether ``text`` without quotes is a number or a switch."""
    try:
        return isinstance(parse(text)[0], int | float)
    except Refused:
        return False


def _known_keys(model: type[BaseModel], inner: Loc) -> list[str]:
    """The keys allowed at ``inner``; descends into nested models, also inside lists and options."""
    models = [model]
    for part in inner:
        if isinstance(part, str):
            fields = [found.model_fields[part].annotation for found in models if part in found.model_fields]
            models = [found for annotation in fields for found in _models(annotation)]
    return [name for found in models for name in found.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
