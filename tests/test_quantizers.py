"""Quantizers against closed forms, brute force and vector-quantize-pytorch, and one test per known mistake."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from vector_quantize_pytorch import FSQ as TheirFSQ
from vector_quantize_pytorch import VectorQuantize

from agentctl.world_models.quantizers import FSQ, Codebook, moved, nearest, perplexity, smoothed

GRIDS = [(8, 8, 8), (8, 5, 5, 5), (7, 5, 5), (4, 3), (4,)]


def codebook(codes=8, dim=4, decay=0.99, revive_below=0.0, seed=0, begun=True):
    made = Codebook(codes, dim, decay, revive_below, seed)
    made.begun.fill_(begun)
    return made


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# --- the learnt codebook ----------------------------------------------------------------------------------------------


def test_each_vector_gets_the_nearest_code_and_its_value():
    book, z = codebook(codes=32, dim=5), gaussian(200, 5)
    found = book.quantize(z)
    for vector, code, index in zip(z.double(), found.codes, found.indices, strict=True):
        distances = [float((vector - other).square().sum()) for other in book.vectors.double()]
        assert index == int(np.argmin(distances))
        torch.testing.assert_close(code, book.vectors[index])
    assert float(found.loss) == pytest.approx(float((z - book.vectors[found.indices]).square().mean()))


def test_codes_that_half_precision_cannot_tell_apart_are_told_apart():
    vectors, z = torch.tensor([[100.4], [100.7]]), torch.tensor([[100.5]], dtype=torch.bfloat16)
    assert vectors.bfloat16()[0] == vectors.bfloat16()[1]
    assert nearest(z, vectors).tolist() == [0]


def test_the_gradient_passes_as_if_nothing_had_been_rounded():
    book, z = codebook(), gaussian(3, 4)
    jacobian = torch.autograd.functional.jacobian(lambda z: book.quantize(z).codes, z)
    assert torch.equal(jacobian.reshape(12, 12), torch.eye(12))
    z.requires_grad_(True)
    found = book.quantize(z)
    (gradient,) = torch.autograd.grad(found.loss, z)
    torch.testing.assert_close(gradient, 2 * (z.detach() - book.vectors[found.indices]) / 12)


def test_codes_are_the_weighted_means_of_three_batches():
    """m_k = g^3 m_k0 + (1 - g) sum_t g^(3 - t) (sum of the vectors of batch t), counts alike; e_k = m_k / N^_k."""
    g, book = 0.9, codebook(codes=3, dim=2, decay=0.9)
    batches = [[(1, 0), (0, 1), (0, 1)], [(2, 2), (1, 1), (0, 1)], [(-1, 3), (1, 0), (5, 5)]]
    given = [[0, 1, 1], [2, 0, 1], [1, 0, 2]]
    before = book.sums.tolist()
    for batch, indices in zip(batches, given, strict=True):
        book.update(torch.tensor(batch).float(), torch.tensor(indices))
    for k in range(3):
        weights = [(1 - g) * g ** (2 - t) for t in range(3)]
        members = [[z for z, i in zip(batches[t], given[t], strict=True) if i == k] for t in range(3)]
        count = g**3 + sum(w * len(m) for w, m in zip(weights, members, strict=True))
        sums = [
            g**3 * before[k][d] + sum(w * sum(z[d] for z in m) for w, m in zip(weights, members, strict=True))
            for d in range(2)
        ]
        assert book.counts[k].item() == pytest.approx(count, rel=1e-5)
        assert book.sums[k].tolist() == pytest.approx(sums, rel=1e-5, abs=1e-6)
        assert book.vectors[k].tolist() == pytest.approx([s / count for s in sums], rel=1e-3, abs=1e-5)


def test_codes_move_as_those_of_vector_quantize_pytorch():
    ours = codebook(codes=32, dim=8)
    peer = VectorQuantize(dim=8, codebook_size=32, decay=0.99, eps=1e-5, commitment_weight=0.25, rotation_trick=False)
    theirs = peer._codebook
    for name, value in (("embed", ours.vectors), ("embed_avg", ours.sums), ("cluster_size", ours.counts)):
        getattr(theirs, name).copy_(value[None])
    peer.train()
    for seed in range(20):
        z = 1.5 * gaussian(1, 64, 8, seed=seed) + 0.3
        found = ours.quantize(z[0])
        codes, indices, loss = peer(z)
        assert torch.equal(found.indices, indices[0])
        torch.testing.assert_close(found.codes, codes[0])
        torch.testing.assert_close(0.25 * found.loss, loss.squeeze())
        ours.update(z[0], found.indices)
        torch.testing.assert_close(ours.vectors, theirs.embed[0], rtol=1e-4, atol=1e-5)


def test_smoothing_keeps_the_sum_and_leaves_nothing_at_zero():
    counts = torch.tensor([0.0, 3.0, 5.0])
    found = smoothed(counts, 1e-2)
    assert float(found.sum()) == pytest.approx(8.0)
    assert found.tolist() == pytest.approx([(c + 1e-2) / 8.03 * 8 for c in counts.tolist()])


def test_a_mean_that_nothing_is_added_to_fades_by_its_decay():
    counts, sums = moved(torch.ones(2), torch.ones(2, 1), torch.tensor([[3.0]]), torch.tensor([1]), 0.99)
    assert counts.tolist() == pytest.approx([0.99, 1.0])
    assert sums.flatten().tolist() == pytest.approx([0.99, 1.02])


def test_encoding_changes_nothing_in_training_or_not():
    book = codebook(revive_below=0.9, begun=False)
    before = state_of(book)
    for mode in (True, False):
        book.train(mode)
        first, second = (book.quantize(gaussian(50, 4)) for _ in range(2))
        assert torch.equal(first.indices, second.indices)
    assert all(torch.equal(value, before[name]) for name, value in book.state_dict().items())


def test_the_first_batch_gives_the_codes():
    book, z = codebook(codes=16, begun=False), 100 + gaussian(500, 4)
    book.update(z, book.quantize(z).indices)
    assert all((z == code).all(1).any() for code in book.vectors)
    assert book.counts.tolist() == pytest.approx([500 / 16] * 16)
    assert len(book.quantize(z).indices.unique()) == 16


def test_a_dead_code_becomes_a_vector_of_the_batch_and_counts_anew():
    book = codebook(codes=4, dim=2, revive_below=0.25)
    book.vectors.copy_(torch.tensor([[0.0, 0], [1, 0], [0, 1], [90, 90]]))
    book.counts.copy_(torch.tensor([10.0, 10, 10, 0.1]))
    book.sums.copy_(book.counts[:, None] * book.vectors)
    z = torch.cat([gaussian(29, 2) / 50, torch.tensor([[-4.0, -4.0]])])
    alive = moved(book.counts, book.sums, z, book.quantize(z).indices, 0.99)
    assert book.update(z, book.quantize(z).indices) == 1
    assert torch.cdist(book.vectors[3:], z).min() < 1e-3, "one of the batch"
    torch.testing.assert_close(book.vectors[3], torch.tensor([-4.0, -4.0]), rtol=1e-3, atol=1e-3)  # the far one
    assert float(book.counts[3]) == pytest.approx(2 * 0.25 * float(alive[0].mean())), "or it were dead again at once"
    torch.testing.assert_close(book.counts[:3], alive[0][:3])
    torch.testing.assert_close(book.sums[:3], alive[1][:3])
    assert book.update(z, book.quantize(z).indices) == 0


def test_without_revival_a_dead_code_stays_dead():
    book = codebook(codes=4, dim=2)
    book.vectors[3], book.sums[3] = 90.0, 90.0
    z = gaussian(50, 2)
    for _ in range(500):
        assert book.update(z, book.quantize(z).indices) == 0
    assert 3 not in book.quantize(z).indices
    assert book.dead() == 1


def test_what_is_loaded_goes_on_to_the_bit_also_in_what_it_draws():
    one, other = codebook(codes=64, revive_below=0.9, begun=False), codebook(codes=64, revive_below=0.9, seed=5)
    for seed in range(10):
        z = gaussian(40, 4, seed=seed)
        one.update(z, one.quantize(z).indices)
    other.load_state_dict(state_of(one))
    drawn = []
    for seed in range(10, 30):
        z = gaussian(40, 4, seed=seed)
        drawn += [book.update(z, book.quantize(z).indices) for book in (one, other)]
        assert torch.equal(one.vectors, other.vectors)
    assert sum(drawn) > 20


# --- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", GRIDS, ids=str)
def test_the_grid_is_that_of_vector_quantize_pytorch(levels):
    ours, theirs = FSQ(levels), TheirFSQ(list(levels))
    z = (3 * gaussian(4096, len(levels))).requires_grad_(True)
    found, (codes, indices) = ours.quantize(z), theirs(z[None])
    assert torch.equal(found.indices, indices[0].long())
    torch.testing.assert_close(found.codes, codes[0])
    pull = gaussian(*found.codes.shape, seed=1)
    gradients = [torch.autograd.grad((values * pull).sum(), z)[0] for values in (found.codes, codes[0])]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(ours.lookup(found.indices), theirs.indices_to_codes(indices)[0])


@pytest.mark.parametrize("levels", [*GRIDS, (2, 3)], ids=str)
def test_the_grid_has_every_product_of_its_levels_once_and_all_are_reached(levels):
    grid = FSQ(levels)
    values = [[(digit - n // 2) / (n // 2) for digit in range(n)] for n in levels]
    expected = [point[::-1] for point in itertools.product(*values[::-1])]  # the first number's digit is the lowest
    codes = grid.lookup(torch.arange(grid.codes))
    assert grid.codes == math.prod(levels) == len(expected)
    torch.testing.assert_close(codes, torch.tensor(expected))
    reached = grid.quantize(1.5 * gaussian(200_000, len(levels))).indices
    assert len(reached.unique()) == grid.codes


@pytest.mark.parametrize("levels", [*GRIDS, (2, 3)], ids=str)
def test_index_to_code_to_index_comes_back(levels):
    """A vector that is bounded to exactly a code: z = atanh((digit + s) / r) - atanh(s / r), s = 1/2 of an even n."""
    grid, counts = FSQ(levels), torch.tensor(levels).double()
    indices = torch.arange(grid.codes)
    shift, reach = 0.5 * (counts % 2 == 0), (counts - 1) * 1.001 / 2
    digits = grid.lookup(indices).double() * (counts // 2)
    z = torch.atanh((digits + shift) / reach) - torch.atanh(shift / reach)
    assert torch.equal(grid.quantize(z).indices, indices)
    book = codebook(codes=300, dim=3)
    assert torch.equal(book.quantize(book.lookup(torch.arange(300))).indices, torch.arange(300))


def test_zero_lies_in_the_middle_of_a_level():
    """Also of an even number of levels: without the half shift it would lie on the border of two."""
    for levels in GRIDS:
        nudged = 0.05 * (torch.rand(1000, len(levels)) - 0.5)
        assert (FSQ(levels).quantize(nudged).codes == 0).all()


def test_the_grid_has_nothing_to_learn():
    grid, z = FSQ((8, 8)), gaussian(10, 2)
    assert grid.update(z, grid.quantize(z).indices) == 0
    assert float(grid.quantize(z).loss) == 0
    assert list(grid.state_dict()) == []


# --- figures ----------------------------------------------------------------------------------------------------------


def test_perplexity_is_the_exponential_of_the_entropy():
    assert float(perplexity(torch.full((512,), 7))) == pytest.approx(512)
    assert float(perplexity(torch.tensor([0, 9, 0]))) == pytest.approx(1)
    assert float(perplexity(torch.tensor([2, 1, 1]))) == pytest.approx(2**1.5)
    counts = torch.randint(1, 50, (100,))
    entropy = torch.distributions.Categorical(counts.float()).entropy()
    assert float(perplexity(counts)) == pytest.approx(float(entropy.exp()), rel=1e-5)


def test_revival_keeps_a_large_codebook_in_use():
    """512 codes for vectors in 400 clusters: without revival the codes that no batch comes near stay where they are."""
    centres = 10 * gaussian(400, 8, seed=9)
    used = {}
    for revive_below in (0.0, 0.1):
        book = codebook(codes=512, dim=8, revive_below=revive_below, begun=False)
        for step in range(1000):
            pick = torch.randint(400, (256,), generator=torch.Generator().manual_seed(step))
            pick = pick % 20 if step == 0 else pick  # the first batch knows little of the world
            z = centres[pick] + 0.1 * gaussian(256, 8, seed=step)
            book.update(z, book.quantize(z).indices)
        held_out = (centres[:, None] + 0.1 * gaussian(400, 10, 8, seed=999)).flatten(0, 1)
        found = book.quantize(held_out)
        used[revive_below] = float(perplexity(torch.bincount(found.indices, minlength=512))), float(found.loss)
    print(f"perplexity, error: without revival {used[0.0]}, with {used[0.1]}")
    assert used[0.1][0] > 3 * used[0.0][0]
    assert used[0.1][1] < 0.3 * used[0.0][1]
    assert F.mse_loss(held_out, held_out.mean(0).expand_as(held_out)) > 10 * used[0.1][1]
