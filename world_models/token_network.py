"""What `token_transformer` learns: chances of the next frame's tokens, from the last frames, the action, each other.

The context is H frames of P tokens and the action after them, each seeing all others, or fewer (see sparse.py). The
next frame's P slots come after it and see it too. A slot holds its token or, where that is open, a mask (``filled``:
all slots see all slots); or the token before it (``ordered``: slots see only earlier ones). Outcomes are read at the
action.

Where the percept names one of several games, the action is told together with the game.

Every slot is also told the action and, by a convolution, what stood at its place and around it in the last frames: most
of a frame stays as it was, and what moves comes from nearby. Attention alone takes several times as many updates
to find out whose neighbour is who.

Shape key: N samples, H frames, P = h * w places (tokens of a frame), K codes, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from agentctl.world_models.sparse import Everything, Scope
from agentctl.world_models.transformer import Cache, Past, Transformer

SIGNS = 3  # a reward is learnt as -1, 0 or 1
GLANCE = 16  # numbers that stand for a token where a slot is told of its surroundings


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the network is made for."""

    grid: tuple[int, int]  # h, w
    codes: int  # K
    actions: int
    history: int  # H
    games: int = 0  # that the percept tells apart; 0: it tells of none

    @property
    def places(self) -> int:
        """P"""
        return self.grid[0] * self.grid[1]

    @property
    def mask(self) -> int:
        """The token of open slots."""
        return self.codes


@dataclass(slots=True)
class Context:
    """What the last frames and the action came to."""

    past: list[Past]
    newest: Tensor  # int64 (N, P): the last frame's tokens
    around: Tensor  # (N, P, D): what stood at and around each place, and the action
    reward: Tensor  # float32 (N, 3): logits of its sign
    ended: Tensor  # float32 (N,): logit


class TokenNetwork(nn.Module):
    def __init__(self, sizes: Sizes, layers: int, dim: int, heads: int, scope: Scope | None = None) -> None:
        """``scope``: what tokens see; None: as said above."""
        super().__init__()
        self.sizes = sizes
        self.scope = scope or Everything()
        self.token = nn.Embedding(sizes.codes + 1, dim)
        self.glance = nn.Embedding(sizes.codes, GLANCE)
        self.around = nn.Conv2d(sizes.history * GLANCE, dim, 3, padding=1)
        self.action = nn.Embedding(sizes.actions, dim)
        self.place = nn.Parameter(torch.empty(sizes.places, dim))
        self.time = nn.Parameter(torch.empty(sizes.history + 1, dim))  # of the frames, oldest first; of the next one
        self.order = nn.Parameter(torch.empty(dim))  # told to slots that hold the token before them
        self.body = Transformer(layers, dim, heads)
        self.head = nn.Linear(dim, sizes.codes)
        self.outcome = nn.Linear(dim, SIGNS + 1)
        for weight in (self.token.weight, self.action.weight, self.place, self.time, self.order):
            nn.init.normal_(weight, std=0.1)  # much smaller, and the surroundings drown out the action at first
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.game = nn.Embedding(sizes.games, dim) if sizes.games else None
        if self.game is not None:
            nn.init.normal_(self.game.weight, std=0.1)

    def context(self, frames: Tensor, action: Tensor, game: Tensor | None = None) -> Context:
        """``frames`` int64 (N, H, P), oldest first; ``action`` int64 (N,), what was done after the last.

        ``game``: int64 (N,), which one it is, where the network is made for several.
        """
        seen = self.token(frames) + self.place + self.time[: self.sizes.history, None]
        done = self.action(action).unsqueeze(1)
        if self.game is not None:
            done = done + self.game(game).unsqueeze(1)
        x = torch.cat([rearrange(seen, "n h p d -> n (h p) d"), done], dim=1)
        reading = self.body.read(x, sees=self.scope.context, wanted=1)  # the action's
        outcome = self.outcome(reading.features[:, -1]).float()
        glances = rearrange(self.glance(frames), "n t (h w) d -> n (t d) h w", h=self.sizes.grid[0])
        around = rearrange(self.around(glances), "n d h w -> n (h w) d") + done
        return Context(reading.past, frames[:, -1], around, outcome[:, :SIGNS], outcome[:, SIGNS])

    def filled(self, context: Context, tokens: Tensor) -> Tensor:
        """Logits float32 (N, P, K) of slots that hold ``tokens`` int64 (N, P), ``mask`` where they are open."""
        x = self.token(tokens) + self.slots(context)
        return self.logits(self.body.read(x, context.past, sees=self.scope.filled).features)

    def ordered(self, context: Context, tokens: Tensor) -> Tensor:
        """Logits float32 (N, P, K) of each slot when all before it hold ``tokens`` int64 (N, P)."""
        first = torch.full_like(tokens[:, :1], self.sizes.mask)
        x = self.token(torch.cat([first, tokens[:, :-1]], dim=1)) + self.slots(context) + self.order
        return self.logits(self.body.read(x, context.past, sees=self.scope.ordered).features)

    def reader(self, context: Context) -> Slots:
        """``ordered`` for tokens that are yet to come."""
        length, places = context.past[0].keys.shape[2], self.sizes.places
        cache = Cache(self.body, context.newest.shape[0], length + places)
        for layer, past in enumerate(context.past):
            cache.put(layer, past)
        cache.advance(length)
        return Slots(self, cache, self.slots(context) + self.order)

    def slots(self, context: Context) -> Tensor:
        """What every slot is told, whatever it holds: its place, what stood around it, the action; (N, P, D)."""
        return self.place + self.time[-1] + context.around

    def logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features).float()
        return logits


class Slots:
    """The next frame as it is read, token after token, behind its context; see `decoding.Reader`."""

    def __init__(self, net: TokenNetwork, cache: Cache, told: Tensor) -> None:
        """``cache``: of the context. ``told``: what every slot is told, (N, P, D)."""
        self._net, self._cache, self._told, self._begin = net, cache, told, cache.length
        start = torch.full((len(told), 1), net.sizes.mask, device=told.device)
        self.first = self._read(0, start)[:, 0]

    def after(self, place: int, tokens: Tensor) -> Tensor:
        return self._read(place + 1, tokens)

    def _read(self, slot: int, tokens: Tensor) -> Tensor:
        """Logits (N, w, K) of the slots from ``slot`` on, told of the ``tokens`` (N, w) before each."""
        net, end = self._net, slot + tokens.shape[1]
        self._cache.keep(self._begin + slot)
        x = net.token(tokens) + self._told[:, slot:end]
        return net.logits(net.body.continue_with(x, self._cache, net.scope.slots(slot, end)))


@dataclass(slots=True)
class Lesson:
    """N next frames with what came before them."""

    frames: Tensor  # int64 (N, H, P)
    action: Tensor  # int64 (N,)
    game: Tensor  # int64 (N,): 0 where there is one alone
    target: Tensor  # int64 (N, P): the next frame
    sign: Tensor  # int64 (N,): of the reward, from 0
    ended: Tensor  # float32 (N,)

    @property
    def count(self) -> int:
        return len(self.target)

    def take(self, rows: slice | Tensor) -> Lesson:
        parts = (self.frames, self.action, self.game, self.target, self.sign, self.ended)
        return Lesson(*(part[rows] for part in parts))


def losses(net: TokenNetwork, lesson: Lesson, hidden: Tensor, *, ordered: bool) -> Tensor:
    """Summed cross-entropies (4,): of slots that are ``hidden`` (bool (N, P)), of all in their order, reward, end.

    Without ``ordered`` the second is 0.
    """
    context = net.context(lesson.frames, lesson.action, lesson.game)
    tokens = lesson.target.masked_fill(hidden, net.sizes.mask)
    filled = F.cross_entropy(net.filled(context, tokens)[hidden], lesson.target[hidden], reduction="sum")
    in_order = filled.new_zeros(())
    if ordered:
        logits = net.ordered(context, lesson.target)
        in_order = F.cross_entropy(logits.flatten(0, 1), lesson.target.flatten(), reduction="sum")
    reward = F.cross_entropy(context.reward, lesson.sign, reduction="sum")
    ended = F.binary_cross_entropy_with_logits(context.ended, lesson.ended, reduction="sum")
    return torch.stack([filled, in_order, reward, ended])
