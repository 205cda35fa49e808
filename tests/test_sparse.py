"""Sparse attention is attention with a mask, and what tokens see of each other is what it says."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from token_worlds import ACTIONS, dots, driven, driven_to, setup, trained
from torch.nn import functional as F

from agentctl.world_models.sparse import Everything, Scope, scope_of
from agentctl.world_models.token_network import Sizes, TokenNetwork
from agentctl.world_models.token_transformer import TokenTransformer
from agentctl.world_models.transformer import Past

GRIDS = [(5, 7), (4, 4), (1, 8), (9, 5)]
KINDS: list[Any] = [("axial", 1), ("local", 1), ("local", 2), ("local", 9)]
LAYERS, HISTORY, HEADS, ROWS = 3, 2, 2, 2


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def sees(kind: str, reach: int, layer: int, one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether places see each other, by the words of the documentation."""
    if kind == "axial":
        return one[layer % 2] == other[layer % 2]
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= reach


def masks(kind: str, reach: int, layer: int, grid: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Who sees whom, token by token: bool (L, S) of context, filled and ordered."""
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    context: list[Any] = [place for _ in range(HISTORY) for place in places] + [None]  # the action
    whole = [*context, *places]
    seen = torch.tensor([[not (a and b) or sees(kind, reach, layer, a, b) for b in whole] for a in whole])
    end = len(context)
    ordered = seen[end:].clone()
    ordered[:, end:] &= torch.ones(len(places), len(places), dtype=torch.bool).tril()
    return {"context": seen[:end, :end], "filled": seen[end:], "ordered": ordered}


def random_past(length: int) -> Past:
    return Past(*torch.randn(2, ROWS, HEADS, length, 4, dtype=torch.float64))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("kind", "reach"), KINDS)
def test_it_is_attention_with_the_mask(grid: tuple[int, int], kind: Any, reach: int) -> None:
    """Outputs and gradients."""
    scope: Any = scope_of(kind, grid, HISTORY, LAYERS, reach)
    for layer in range(LAYERS):
        for reading, mask in masks(kind, reach, layer, grid).items():
            if reading == "context" and layer == LAYERS - 1:
                continue  # of which the network asks for the action alone
            queries = torch.randn(ROWS, HEADS, len(mask), 4, dtype=torch.float64, requires_grad=True)
            seen = random_past(mask.shape[1])
            inputs = [queries, seen.keys.requires_grad_(), seen.values.requires_grad_()]
            found = getattr(scope, reading)[layer](queries, seen)
            expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
            torch.testing.assert_close(found, expected)
            weight = torch.randn_like(found)
            ours, theirs = (torch.autograd.grad((each * weight).sum(), inputs) for each in (found, expected))
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kind", "reach"), KINDS)
def test_most_of_what_is_hidden_is_never_computed(kind: Any, reach: int) -> None:
    scope: Any = scope_of(kind, (21, 16), 4, 2, reach)
    pairs = sum(group.queries.numel() * group.keys.shape[1] for group in scope.context[0].groups)
    visible = int(scope.context[0].mask.sum())
    assert visible <= pairs <= 4.5 * visible


GRID, PLACES = (4, 5), 20


def network(scope: Scope) -> TokenNetwork:
    torch.manual_seed(1)
    net = TokenNetwork(Sizes(GRID, codes=5, actions=3, history=HISTORY), LAYERS, 16, HEADS, scope)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


def near(kind: Any) -> Scope:
    return scope_of(kind, GRID, HISTORY, LAYERS, reach=1)


@pytest.mark.parametrize("kind", ["full", "axial", "local"])
@torch.no_grad()
def test_slot_by_slot_with_a_cache_gives_the_logits_of_one_pass(kind: Any) -> None:
    net = network(near(kind))
    context = net.context(torch.randint(5, (ROWS, HISTORY, PLACES)), torch.randint(3, (ROWS,)))
    target = torch.randint(5, (ROWS, PLACES))
    reader = net.reader(context)
    told = [reader.first[:, None], *(reader.after(k, target[:, k : k + 1]) for k in range(PLACES - 1))]
    torch.testing.assert_close(torch.cat(told, 1), net.ordered(context, target), atol=1e-5, rtol=1e-5)
    several = [reader.first[:, None], reader.after(0, target[:, :5]), reader.after(5, target[:, 5:-1])]
    torch.testing.assert_close(torch.cat(several, 1), torch.cat(told, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["axial", "local"])
@torch.no_grad()
def test_the_network_computes_what_it_does_with_masks(kind: Any) -> None:
    """Of all layers."""
    given = torch.randint(5, (ROWS, HISTORY, PLACES)), torch.randint(3, (ROWS,))
    target, answers = torch.randint(5, (ROWS, PLACES)), []
    for scope in (near(kind), Masked([masks(kind, 1, layer, GRID) for layer in range(LAYERS)])):
        net = network(scope)
        context = net.context(*given)
        answers.append([context.reward, context.ended, net.filled(context, target), net.ordered(context, target)])
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)


class Masked(Everything):
    """The same by masks alone."""

    def __init__(self, layers: list[dict[str, torch.Tensor]]) -> None:
        self.context: Any = [*(layer["context"] for layer in layers[:-1]), "all"]
        self.filled: Any = [layer["filled"] for layer in layers]
        self.ordered: Any = [layer["ordered"] for layer in layers]


@pytest.mark.parametrize("kind", ["axial", "local"])
def test_its_weights_are_those_of_full_attention(kind: Any) -> None:
    """So a run may go on with another attention."""
    network(near("full")).load_state_dict(network(near(kind)).state_dict())


def test_what_it_learnt_it_imagines_however_it_decodes() -> None:
    options = {"history": 2, "layers": 2, "dim": 32, "heads": 2, "lr": 3e-3, "threads": 1, "precision": "fp32",
               "temperature": 0.0, "rounds": 3, "attention": "local", "reach": 1}  # fmt: skip
    world = TokenTransformer(TokenTransformer.Config.model_validate(options), setup())
    assert trained(world, driven, 80)["changed_accuracy"] > 0.95
    for decoding in ("parallel", "maskgit", "autoregressive"):
        run_time = TokenTransformer(TokenTransformer.Config.model_validate({**options, "decoding": decoding}), setup())
        run_time.load(world.save())
        place, state, rng = np.arange(4), {"tokens": dots(np.arange(4)[None])[0]}, np.random.default_rng(0)
        carry: Any = run_time.observe(run_time.initial(4), state, None, np.ones(4, bool)).carry
        for _ in range(4):
            action = rng.integers(1, ACTIONS, 4)
            place, ahead = driven_to(place, action), run_time.imagine(carry, state, action)
            carry, state = ahead.carry, ahead.state
            assert (state["tokens"] == dots(place[None])[0]).all(), decoding


def test_one_layer_cannot_be_axial() -> None:
    with pytest.raises(ValidationError, match="set layers to 2 or more"):
        TokenTransformer.Config(attention="axial", layers=1)
