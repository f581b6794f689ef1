"""The sketch of response gradients: against its definition, its law, and the gradients themselves."""

import numpy as np
import pytest
import torch

from prefdyn.models import sketch as room
from prefdyn.models import tiles
from prefdyn.models.sketch import Buckets, SketchedHead, exact_gram, factor
from tests.naive import responses as naive


def model(vocabulary, width, *, seed=0, bias=False, scale=1.0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocabulary, width, generator=draw, dtype=torch.float64).to(dtype)
    shift = torch.randn(vocabulary, generator=draw, dtype=torch.float64).to(dtype) if bias else None
    return weight, shift, scale


def tokens(vocabulary, width, lengths, *, seed=1, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    states = torch.randn(count, width, generator=draw, dtype=torch.float64).to(dtype)
    return states, torch.randint(0, vocabulary, (count,), generator=draw), torch.tensor(lengths)


SHAPES = {"more tokens than buckets": (37, 5, 8), "more of both": (21, 11, 4), "more buckets": (6, 3, 64)}


@pytest.mark.parametrize(("vocabulary", "width", "size"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("bias", "scale"), [(False, 1.0), (True, 0.3)])
def test_is_the_sketch_of_the_gradient(vocabulary, width, size, bias, scale):
    """Entry by entry in float64, whatever the blocks of logits; and the log-probabilities beside it."""
    lm = model(vocabulary, width, bias=bias, scale=scale)
    given = tokens(vocabulary, width, [3, 1, 4, 2])
    buckets = Buckets.draw(vocabulary, width, size=size, seed=3)
    truth, sums = naive.gradients(*given, lm[0], bias=lm[1], scale=scale)
    found, log_probs = SketchedHead(*lm, buckets=buckets).read(*given)
    wanted = np.stack([naive.sketch(each, buckets) for each in truth])
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-11)
    np.testing.assert_allclose(log_probs.numpy(), sums, rtol=0, atol=1e-11)


def test_does_not_depend_on_the_blocks_of_logits(monkeypatch):
    lm, buckets = model(37, 5), Buckets.draw(37, 5, size=8)
    given = tokens(37, 5, [3, 1, 4, 2])
    whole = SketchedHead(*lm, buckets=buckets).read(*given)
    for numbers, columns in ((37, 16384), (74, 16384), (150, 16384), (37, 5), (100, 20), (100, 36)):
        monkeypatch.setattr(tiles, "LOGITS", {"cpu": numbers})
        monkeypatch.setattr(tiles, "COLUMNS", columns)
        for one, other in zip(SketchedHead(*lm, buckets=buckets).read(*given), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_half_precision_heads_are_read_in_float32():
    lm = model(50, 4, dtype=torch.bfloat16)
    given = tokens(50, 4, [3, 2], dtype=torch.bfloat16)
    buckets = Buckets.draw(50, 4, size=16)
    truth, _ = naive.gradients(*given, lm[0])
    found, log_probs = SketchedHead(*lm, buckets=buckets).read(*given)
    assert (found.dtype, log_probs.dtype) == (torch.float32, torch.float64)
    np.testing.assert_allclose(found.numpy(), [naive.sketch(each, buckets) for each in truth], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("vocabulary", "width", "size"), SHAPES.values(), ids=SHAPES)
def test_products_are_unbiased(vocabulary, width, size):
    """The mean over 200 seeds lies within three standard errors of the true product."""
    lm = model(vocabulary, width)
    given = tokens(vocabulary, width, [4, 3])
    (first, second), _ = naive.gradients(*given, lm[0])
    found = np.array([products(lm, given, Buckets.draw(vocabulary, width, size=size, seed=s)) for s in range(200)])
    truth = [np.vdot(first, second), np.vdot(first, first)]
    errors = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - truth) <= 3 * np.maximum(errors, 1e-12)).all()


def products(lm, given, buckets):
    one, two = SketchedHead(*lm, buckets=buckets).read(*given)[0].numpy()
    return one @ two, one @ one


@pytest.mark.thorough
@pytest.mark.parametrize(("vocabulary", "width", "size"), [(200, 30, 16), (40, 9, 64), (64, 80, 32)])
def test_the_variance_obeys_its_law(vocabulary, width, size):
    """Of random matrices the law is met, not only kept to; of a common state the bound of 6/k is not reached."""
    draw = np.random.default_rng(0)
    for common in (False, True):
        one, two = draw.normal(size=(2, vocabulary, width))
        if common:  # all gradients along one state: the terms with shared coordinates are as large as they get
            one, two = (np.outer(each[:, 0], np.ones(width)) for each in (one, two))
        found = np.array([sketched(one, two, Buckets.draw(vocabulary, width, size=size, seed=s)) for s in range(2000)])
        variance, product = found.var(ddof=1), np.vdot(one, two)
        lengths = np.vdot(one, one) * np.vdot(two, two)
        rows = np.sum((one @ two.T) ** 2) if vocabulary > size else 0.0
        columns = np.sum((one.T @ two) ** 2) if width > size else 0.0
        law = (lengths + product**2 + 2 * rows + 2 * columns) / size
        assert variance < 1.15 * law
        assert variance < 6 * lengths / size
        if vocabulary <= size and width <= size:
            assert variance > 0.8 * law


def sketched(one, two, buckets):
    return float(through(one, buckets) @ through(two, buckets))


def through(matrix, buckets):
    """`naive.sketch` by Fourier transforms of the rows."""
    size = buckets.size
    bucket = np.empty(size, dtype=int)
    bucket[buckets.places] = np.arange(size)
    placed = np.zeros((size, size))
    rows = bucket[np.arange(len(buckets.order)) % size]
    columns = np.arange(len(buckets.columns)) % size
    signed = buckets.signs[:, None] * matrix[np.ix_(buckets.order, buckets.columns)] * buckets.column_signs
    np.add.at(placed, (rows[:, None], columns[None, :]), signed)
    return np.array([np.sum(placed[np.arange(size), (at - np.arange(size)) % size]) for at in range(size)])


def test_the_twin_of_the_law_is_the_sketch():
    buckets = Buckets.draw(21, 11, size=4, seed=5)
    matrix = np.random.default_rng(1).normal(size=(21, 11))
    np.testing.assert_allclose(through(matrix, buckets), naive.sketch(matrix, buckets), atol=1e-12)


# unsketched ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [1, 60, 1 << 24])
@pytest.mark.parametrize(("bias", "scale"), [(False, 1.0), (True, 0.3)])
@pytest.mark.parametrize(("width", "atol"), [(4, 1e-11), (12, 1e-10)])
def test_exact_products_are_those_of_the_gradients(monkeypatch, numbers, bias, scale, width, atol):
    """Whatever the slices of the vocabulary; of fewer tokens than a state has numbers from every two's residuals."""
    monkeypatch.setattr(room, "_EXACT", {"cpu": numbers})
    lm = model(23, width, bias=bias, scale=scale)
    given = tokens(23, width, [3, 1, 4, 2])
    truth, _ = naive.gradients(*given, lm[0], bias=lm[1], scale=scale)
    flat = truth.reshape(4, -1)
    np.testing.assert_allclose(exact_gram(*given, *lm), flat @ flat.T, rtol=0, atol=atol)
    pairs = flat[:2] - flat[2:]
    np.testing.assert_allclose(exact_gram(*given, *lm, of_pairs=True), pairs @ pairs.T, rtol=0, atol=atol)


def test_factors_have_the_products_and_no_more_columns_than_needed():
    rows = np.random.default_rng(0).normal(size=(9, 3))
    found = factor(rows @ rows.T)
    assert found.shape == (9, 3)
    np.testing.assert_allclose(found @ found.T, rows @ rows.T, atol=1e-12)
    assert factor(np.zeros((3, 3))).shape == (3, 0)


def test_the_vector_of_two_pairs():
    """Three tokens, two pairs, six states: kernel, cross term and its finite difference, printed with the method."""
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)
    gram = exact_gram(*TWO_PAIRS, head)
    kernel = gram[:2, :2] - gram[:2, 2:] - gram[2:, :2] + gram[2:, 2:]
    wanted = [[3.465485482976, 1.133928962932], [1.133928962932, 1.030220944121]]
    np.testing.assert_allclose(kernel, wanted, rtol=0, atol=1e-12)
    assert abs((gram[1, 0] - gram[1, 2]) - -0.442678127877) < 1e-12

    truth, before = naive.gradients(*TWO_PAIRS, head)
    step, move = 1e-6, truth[0] - truth[2]  # the head moves along pair 1's feature
    _, after = naive.gradients(*TWO_PAIRS, head + step * torch.from_numpy(move))
    assert abs((after[1] - before[1]) / step - -0.442678127877) < 1e-5
    assert (after[1] - after[3]) > (before[1] - before[3])  # pair 2's chosen falls while its margin grows


TWO_PAIRS = (
    torch.tensor(
        [[1.0, 0.0], [0.5, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64
    ),  # chosen 1, chosen 1, chosen 2, rejected 1, rejected 2, rejected 2
    torch.tensor([0, 2, 1, 1, 0, 1]),
    torch.tensor([2, 1, 1, 2]),
)
