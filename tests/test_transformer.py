"""The transformer computes what torch's own does, and the same in pieces as in one; decoding keeps its schedules."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from agentctl.core.nn.attention import attention, slow
from agentctl.world_models.decoding import Sampling, autoregressive, maskgit, masks, parallel, still_open
from agentctl.world_models.token_metrics import TokenScore, auc, entropy_bits, f1
from agentctl.world_models.transformer import Cache, Transformer

OPEN = 2


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def transformer() -> Transformer:
    net = Transformer(layers=3, dim=32, heads=4)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


def torchs_own(net: Transformer) -> nn.TransformerEncoder:
    """torch's encoder with the same weights."""
    layer = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True)
    peer = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(32), enable_nested_tensor=False).eval()
    for ours, theirs in zip(net.blocks, peer.layers, strict=True):
        theirs.self_attn.in_proj_weight.data, theirs.self_attn.in_proj_bias.data = ours.qkv.weight, ours.qkv.bias
        pairs = [(theirs.self_attn.out_proj, ours.out), (theirs.linear1, ours.up), (theirs.linear2, ours.down)]
        for their, our in [*pairs, (theirs.norm1, ours.norm_attention), (theirs.norm2, ours.norm_mlp)]:
            their.load_state_dict(our.state_dict())
    peer.norm.load_state_dict(net.norm.state_dict())
    return peer


@pytest.mark.parametrize("sees", ["all", "before"])
@torch.no_grad()
def test_it_computes_what_torchs_encoder_does(sees: Any) -> None:
    net, x = transformer(), torch.randn(2, 7, 32)
    mask = nn.Transformer.generate_square_subsequent_mask(7) if sees == "before" else None
    torch.testing.assert_close(net.read(x, sees=sees).features, torchs_own(net)(x, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sees", ["all", "before", torch.rand(5, 5).tril() + torch.eye(5) > 0.4])
def test_attention_in_bfloat16_is_torchs_own_and_so_are_its_gradients(sees: Any) -> None:
    drawn = [torch.randn(2, 3, 5, 8) for _ in range(3)]
    ours = [part.bfloat16().requires_grad_() for part in drawn]
    theirs = [part.clone().requires_grad_() for part in drawn]
    assert slow(ours[0], ours[1]), "computed step by step"
    mask = sees if isinstance(sees, torch.Tensor) else None
    found = attention(*ours, sees)
    expected = F.scaled_dot_product_attention(
        *theirs, attn_mask=mask, is_causal=sees == "before" if mask is None else False
    )
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    pairs = zip(torch.autograd.grad(found.sum(), ours), torch.autograd.grad(expected.sum(), theirs), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine.float(), other, atol=0.1, rtol=0.05)


@torch.no_grad()
def test_a_query_may_be_in_another_format_than_what_it_sees() -> None:
    queries, keys, values = (torch.randn(2, 3, 5, 8) for _ in range(3))
    expected = F.scaled_dot_product_attention(queries.bfloat16().float(), keys, values)
    assert torch.equal(attention(queries.bfloat16(), keys, values), expected.bfloat16())


@torch.no_grad()
def test_what_was_read_before_need_not_be_read_again() -> None:
    net, x = transformer(), torch.randn(2, 9, 32)
    whole = net.read(x, sees="before").features
    begun = net.read(x[:, :4], sees="before")
    rest = net.read(x[:, 4:], begun.past, sees="before").features
    torch.testing.assert_close(torch.cat([begun.features, rest], 1), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_not_wanted_changes_nothing_of_what_is() -> None:
    net, x = transformer(), torch.randn(2, 9, 32)
    whole, part = net.read(x, sees="all"), net.read(x, sees="all", wanted=2)
    torch.testing.assert_close(part.features, whole.features[:, -2:], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(part.past, whole.past, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)


@torch.no_grad()
def test_a_cache_gives_the_same_token_by_token_and_after_going_back() -> None:
    net, x = transformer(), torch.randn(2, 9, 32)
    whole = net.read(x, sees="before").features
    cache = Cache(net, rows=2, room=9)
    pieces = [net.continue_with(x[:, a:b], cache) for a, b in ((0, 3), (3, 4), (4, 9))]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)
    cache.keep(5)
    torch.testing.assert_close(net.continue_with(x[:, 5:6], cache), whole[:, 5:6], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_causal_reading_never_sees_what_comes_later() -> None:
    net, x = transformer(), torch.randn(1, 6, 32)
    changed = x.clone()
    changed[:, 4:] = torch.randn(1, 2, 32)
    before, after = (net.read(seen, sees="before").features for seen in (x, changed))
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.allclose(before[:, 4:], after[:, 4:])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim 30 cannot be split among 4 heads"):
        Transformer(1, 30, 4)


# decoding ------------------------------------------------------------------------------------------------------------


def sampling(temperature: float = 1.0) -> Sampling:
    return Sampling(temperature, torch.Generator().manual_seed(0))


def twins(tokens: torch.Tensor) -> torch.Tensor:
    """The exact chances of two tokens that are always alike: 00 or 11."""
    chances = torch.full((*tokens.shape, 2), 0.5)
    other = tokens.flip(1)
    known = other != OPEN
    chances[known] = F.one_hot(other[known], 2).float()
    return chances.clamp(1e-9).log()


@pytest.mark.parametrize(("rounds", "share"), [(1, 0.5), (2, 0.0)])
def test_tokens_drawn_at_once_do_not_agree_and_in_rounds_they_do(rounds: int, share: float) -> None:
    tokens = maskgit(twins, torch.full((4000, 2), OPEN), sampling(), rounds)
    wrong = float((tokens[:, 0] != tokens[:, 1]).float().mean())
    assert wrong == pytest.approx(share, abs=0.03)
    assert float(tokens.float().mean()) == pytest.approx(0.5, abs=0.03)


def test_drawing_all_at_once_is_one_round_of_maskgit() -> None:
    slots = torch.full((50, 2), OPEN)
    assert torch.equal(parallel(twins, slots, sampling()), maskgit(twins, slots, sampling(), 1, spread=0.0))


def test_rounds_keep_the_cosine_schedule_and_never_reopen_a_token() -> None:
    places, rounds, seen = 20, 5, []

    def logits_of(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens)
        return torch.randn(*tokens.shape, OPEN)

    tokens = maskgit(logits_of, torch.full((3, places), OPEN), sampling(), rounds)
    opened = [(state == OPEN).sum(1).tolist() for state in [*seen, tokens]]
    assert opened == [[math.floor(places * math.cos(math.pi / 2 * t / rounds) + 1e-6)] * 3 for t in range(rounds)] + [
        [0] * 3
    ]
    for earlier, later in zip(seen, [*seen[1:], tokens], strict=True):
        kept = earlier != OPEN
        assert torch.equal(earlier[kept], later[kept])


class Copier:
    """A reader of a random table: what follows a token depends on the place and on the token."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.passes, self.read = table, 0, 0  # (P, K, K)
        self.first = table[0, :1].expand(64, -1)

    def after(self, place: int, tokens: torch.Tensor) -> torch.Tensor:
        self.passes, self.read = self.passes + 1, self.read + tokens.shape[1]
        return self.table[place + 1 + torch.arange(tokens.shape[1]), tokens]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guessing_ahead_changes_nothing_and_spares_passes(temperature: float) -> None:
    """One by one, with the same noise; however wrong the guess is."""
    table = torch.randn(12, 5, 5)
    one_by_one = torch.zeros(64, 12, dtype=torch.long)
    noise = sampling(temperature).gumbel(torch.empty(64, 12, 5))
    logits = table[0, :1].expand(64, -1)
    for place in range(12):
        one_by_one[:, place] = sampling(temperature).draw(logits, noise[:, place])
        logits = table[min(place + 1, 11), one_by_one[:, place]]
    almost = one_by_one.clone()
    almost[:, 7] = (almost[:, 7] + 1) % 5
    for guess, passes in ((one_by_one, 1), (almost, 6), (torch.zeros_like(one_by_one), 11)):
        reader = Copier(table)
        assert (autoregressive(reader, guess, sampling(temperature)) == one_by_one).all()
        assert reader.passes <= passes and reader.read <= 11 + 2 * passes


def test_draws_have_the_logits_chances() -> None:
    chances = torch.tensor([0.1, 0.2, 0.7])
    drawn = sampling().draw(chances.log().expand(20_000, 3))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, chances, atol=0.015)
    assert (sampling(0.0).draw(chances.log().expand(5, 3)) == 2).all()


def test_the_share_of_hidden_tokens_follows_the_cosine() -> None:
    hidden = masks(torch.zeros(4000, 64), torch.Generator().manual_seed(0))
    assert float(hidden.float().mean()) == pytest.approx(2 / math.pi, abs=0.02)
    assert hidden.sum(1).min() >= 1
    assert [still_open(t / 4, 8) for t in range(5)] == [8, 7, 5, 3, 0]


# figures -------------------------------------------------------------------------------------------------------------


def test_token_figures_against_counting_by_hand() -> None:
    score = TokenScore(codes=4)
    score.add_tokens(np.array([[1, 2, 3]]), np.array([[1, 3, 3]]), np.array([[1, 2, 2]]))
    found = score.metrics()
    assert found["accuracy"] == pytest.approx(2 / 3) and found["copy_accuracy"] == pytest.approx(1 / 3)
    assert found["changed_accuracy"] == pytest.approx(1 / 2) and found["changed_share"] == pytest.approx(2 / 3)
    assert found["unigram_bits"] == pytest.approx(-(1 / 3 * math.log2(1 / 3) + 2 / 3 * math.log2(2 / 3)))


def test_copying_scores_its_own_baseline_and_nothing_where_it_counts() -> None:
    rng = np.random.default_rng(0)
    last, target = rng.integers(5, size=(2, 30, 6))
    score = TokenScore(codes=5)
    score.add_tokens(last, target, last)
    found = score.metrics()
    assert found["accuracy"] == found["copy_accuracy"] and found["changed_accuracy"] == 0


def test_auc_is_the_chance_to_rank_a_pair_right() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(6, size=40) / 6, rng.random(40) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in score[positive] for b in score[~positive]]
    assert auc(score, positive) == pytest.approx(np.mean(pairs))
    assert math.isnan(auc(score, np.zeros(40, bool)))


def test_f1_of_rewards_by_hand() -> None:
    assert f1(np.array([1, 1, 0, -1]), np.array([1, 0, 1, -1])) == pytest.approx(2 / 3)
    assert f1(np.array([1.0]), np.array([-1.0])) == 0 and math.isnan(f1(np.zeros(3), np.zeros(3)))


def test_entropy_of_equal_shares() -> None:
    assert entropy_bits(np.array([5, 5, 0, 5, 5])) == pytest.approx(2.0)
