"""Recorded episodes on disk: Minari datasets (https://minari.farama.org), so that other libraries read them too.

One episode is one Parquet file: what is written stays whole whatever happens after it. Beside Minari's own fields each
episode keeps a checksum, and each step the reward terms and their total, so that a recording can be played again and
compared. Nothing here imports Minari before it is needed; `pip install 'game-agentctl[record]'` brings it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from agentctl.core.errors import AgentctlError, ConfigError, NotReadyError
from agentctl.core.types import Array, Arrays

if TYPE_CHECKING:
    from minari.dataset.minari_storage import MinariStorage

FORMAT = "parquet"
METADATA = "metadata.json"
TOTAL, TERM = "total", "term/"


@dataclass(slots=True)
class Episode:
    """T steps of one row as the game showed them, to where they ended or were cut."""

    observations: Arrays  # each (T + 1, ...)
    actions: Array  # (T,) for Discrete, (T, n) otherwise
    rewards: Array  # float32 (T,): the game's own
    ended: bool  # over by the rules; else a limit cut it
    over: bool = True  # the return is complete (a lost life ends, is not over)
    row: int = 0  # of the batch it was played in
    number: int = 0  # counts the episodes of a recording
    terms: dict[str, Array] = field(default_factory=dict)  # each float32 (T,), unweighted
    total: Array = field(default_factory=lambda: np.zeros(0, np.float32))  # float32 (T,): what is learnt from

    @property
    def length(self) -> int:
        """T"""
        return len(self.rewards)


class Recorder:
    """Writes a new recording, episode by episode."""

    def __init__(
        self, folder: Path, observation_space: spaces.Dict, action_space: spaces.Space[Any], about: Mapping[str, Any]
    ) -> None:
        """``about``: plain data on how it came about: game, agent, config, versions. Raises ConfigError when taken."""
        if folder.is_file() or is_taken(folder):
            raise ConfigError(f"{folder}: there is something already; choose another --out")
        import_minari()
        from minari import __version__
        from minari.dataset.minari_storage import MinariStorage

        self.folder, self._count, self._bytes = folder, 0, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / METADATA).unlink(missing_ok=True)
            self._storage = MinariStorage.new(
                folder, observation_space, action_space, data_format=FORMAT, jpeg_encoding=False
            )
        except OSError as error:
            raise AgentctlError(f"{folder}: cannot write there: {error}; choose another --out") from error
        except (NotImplementedError, ValueError) as error:
            raise ConfigError(f"{folder}: Minari cannot hold {observation_space} or {action_space}: {error}") from error
        self._storage.update_metadata = self._update
        self._storage.get_size = lambda: round(self._bytes / 1e6, 1)
        known = {"algorithm_name": str(about.get("agent", "")), "description": str(about.get("game", ""))}
        names = {"dataset_id": f"agentctl/{_plain(folder.name)}-v0", "minari_version": __version__}
        self._storage.update_metadata({**names, **known, "agentctl": dict(about)})

    def write(self, episode: Episode) -> None:
        """Append an episode. Raises AgentctlError when it cannot be written; what was written before is whole."""
        from minari.data_collector import EpisodeBuffer

        flags = np.zeros((2, episode.length), bool)
        flags[0 if episode.ended else 1, -1] = True
        extras = {TOTAL: episode.total, **{f"{TERM}{name}": term for name, term in episode.terms.items()}}
        buffer = EpisodeBuffer(
            id=self._count,
            observations=dict(episode.observations),
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=flags[0],
            truncations=flags[1],
            infos={name: _led_to(values) for name, values in extras.items() if len(values)},
        )
        try:
            self._storage.update_episodes([buffer])
            about = {"row": episode.row, "over": episode.over, "checksum": _checksum(self.folder / str(self._count))}
            self._storage.update_episode_metadata([about], [self._count])
        except OSError as error:
            raise AgentctlError(f"{self.folder}: cannot write episode {self._count}: {error}") from error
        self._bytes += sum(file.stat().st_size for file in (self.folder / str(self._count)).iterdir())
        self._count += 1

    def _update(self, changes: Mapping[str, Any]) -> None:
        """Minari's ``update_metadata``, but atomic: its own writes the file in place, which a kill leaves cut off."""
        path = self.folder / METADATA
        known = json.loads(path.read_text(encoding="utf-8"))
        aside = path.with_name(".metadata.writing")
        aside.write_text(json.dumps({**known, **changes}), encoding="utf-8")
        aside.replace(path)


class Recording:
    """A recording to read. ``damaged`` tells, by episode, what is wrong with those that are left out."""

    def __init__(self, folder: Path) -> None:
        """Raises AgentctlError when there is no recording, or nothing of it can be read."""
        import_minari()
        from minari.dataset.minari_storage import MinariStorage

        self.folder = folder
        try:
            metadata = MinariStorage.read_raw_metadata(folder)
            if missing := {"observation_space", "action_space"} - metadata.keys():  # Minari would start what it names
                raise ValueError(f"it does not tell its {' and '.join(sorted(missing))}")
            self._storage: MinariStorage = MinariStorage.read(folder)
        except (OSError, ValueError, KeyError, AssertionError, ImportError, TypeError, AttributeError) as error:
            raise AgentctlError(
                f"{folder}: not a recording: {error}; `agentctl record` writes one, and any Minari dataset is one"
            ) from error
        self.about: dict[str, Any] = metadata.get("agentctl", {})
        self.observation_space = self._storage.observation_space
        self.action_space = self._storage.action_space
        self.damaged: dict[int, str] = {}
        self.lengths: dict[int, int] = {}  # steps, by number of the episodes that are whole
        self.checksums: dict[int, str] = {}  # of the same
        self._details: dict[int, dict[str, Any]] = {}
        for number in self._numbers(int(metadata.get("total_episodes", 0))):
            self._examine(number)

    @property
    def steps(self) -> int:
        return sum(self.lengths.values())

    @property
    def rows(self) -> list[list[int]]:
        """The numbers of the whole episodes in their order, for each row of the batch they were played in."""
        of = {number: int(self._details[number].get("row", 0)) for number in self.lengths}
        rows = max([int(self.about.get("rows", 1)), *(row + 1 for row in of.values())])
        return [[number for number in of if of[number] == row] for row in range(rows)]

    @property
    def games(self) -> dict[int, tuple[int, int]]:
        """Which game each whole episode belongs to, by row and place: where lives end episodes it has several."""
        found: dict[int, tuple[int, int]] = {}
        for row, numbers in enumerate(self.rows):
            game = 0
            for number in numbers:
                found[number] = (row, game)
                game += bool(self._details[number].get("over", True))
        return found

    def check_not_empty(self) -> None:
        """Raise AgentctlError when there is no whole episode."""
        if not self.lengths:
            damaged = f", {len(self.damaged)} are damaged" if self.damaged else ""
            raise AgentctlError(
                f"{self.folder}: it holds no whole episode{damaged}; record some with `agentctl record`"
            )

    def episode(self, number: int) -> Episode:
        """Read one whole episode. Raises AgentctlError when it became unreadable since."""
        try:
            return self._read(number)
        except Exception as error:
            raise AgentctlError(f"{self.folder}: episode {number} cannot be read: {error}") from error

    def episodes(self) -> Iterator[Episode]:
        """Every whole episode."""
        return map(self.episode, self.lengths)

    def named(self, space: spaces.Dict) -> dict[str, str]:
        """How a game with the observations ``space`` calls this recording's. Raises ConfigError when they differ.

        A recording of bare arrays, as other libraries write them, fits a game that shows one.
        """
        names = list(space.spaces)
        if not isinstance(self.observation_space, spaces.Dict) and len(names) == 1:
            mine = spaces.Dict({names[0]: self.observation_space})
            naming = {"": names[0]}
        else:
            mine, naming = self.observation_space, {name: name for name in names}
        if mine != space:
            raise ConfigError(f"{self.folder}: it shows {self.observation_space}, the game shows {space}")
        return naming

    def _numbers(self, known: int) -> range:
        """Also those that were written when a kill came before the count."""
        there = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        return range(max([known, *(number + 1 for number in there)]))

    def _examine(self, number: int) -> None:
        """Note an episode as whole or as damaged."""
        try:
            (details,) = self._storage.get_episode_metadata([number])
            expected, found = details.get("checksum"), _checksum(self.folder / str(number))
            if expected is not None and expected != found:
                raise ValueError("its checksum is wrong")
            self.lengths[number], self._details[number] = int(details["total_steps"]), details
            self.checksums[number] = found
            if expected is None:
                self._read(number)
        except Exception as error:
            self.lengths.pop(number, None)
            self.damaged[number] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    def _read(self, number: int) -> Episode:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (found,) = self._storage.get_episodes([number])
        length = self.lengths[number]
        if len(found["rewards"]) != length:
            raise ValueError(f"it holds {len(found['rewards'])} of {length} steps")
        seen, infos = found["observations"], found["infos"] or {}
        extras = {name: np.asarray(values)[1:].astype(np.float32) for name, values in infos.items() if _is_ours(name)}
        return Episode(
            observations=seen if isinstance(seen, dict) else {"": np.asarray(seen)},
            actions=np.asarray(found["actions"]).astype(self.action_space.dtype or np.float32),
            rewards=np.asarray(found["rewards"], np.float32),
            ended=bool(found["terminations"][-1]),
            over=bool(self._details[number].get("over", True)),
            row=int(self._details[number].get("row", 0)),
            number=number,
            terms={name.removeprefix(TERM): values for name, values in extras.items() if name != TOTAL},
            total=extras.get(TOTAL, np.zeros(0, np.float32)),
        )


def is_taken(folder: Path) -> bool:
    """Whether a new recording there would harm something: one that was stopped before its first episode does not."""
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if there != {METADATA}:
        return bool(there)
    try:
        return bool(json.loads((folder / METADATA).read_text(encoding="utf-8"))["total_episodes"])
    except (ValueError, KeyError, TypeError):
        return True


def import_minari() -> None:
    """Raise NotReadyError, naming the remedy, when Minari is not there."""
    try:
        import minari  # noqa: F401
        import PIL  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise NotReadyError(f"recordings need Minari: {error}; pip install 'game-agentctl[record]'") from error


def _led_to(values: Array) -> list[float]:
    """T + 1 of them: Minari's infos belong to observations; the first one follows no step."""
    return [0.0, *values.tolist()]  # a list, for of one-dimensional arrays Minari 0.5.4 cannot read the shape back


def _is_ours(name: str) -> bool:
    return name == TOTAL or name.startswith(TERM)


def _checksum(folder: Path) -> str:
    """Of an episode's data, without what is told about it."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(folder.glob(f"*.{FORMAT}")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _plain(name: str) -> str:
    """A name as Minari takes it."""
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-") or "recording"
