"""The margin kernel against its definition, and the objective against its derivative and its tails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError
from prefdyn.maths.kernel import PairKernel, answer_coordinates, preference_sharing
from prefdyn.maths.objectives import DPO, LOG2, objective


def test_sharing_of_theory_t2():
    """THEORY T2: the seven printed values of P."""
    others = [((0, 1), 2), ((1, 0), -2), ((0, 2), 1), ((2, 1), 1), ((2, 0), -1), ((1, 2), -1), ((2, 3), 0)]
    for (w, loser), expected in others:
        shared = preference_sharing(np.array([0]), np.array([1]), np.array([w]), np.array([loser]))
        assert shared.tolist() == [[expected]]


def test_kernel_of_theory_t3():
    """THEORY T3: C for three pairs over three tokens."""
    coordinates, _ = answer_coordinates(np.array([0, 1, 0]), np.array([1, 0, 2]), 3)
    kernel = PairKernel(answers=coordinates, features=np.array([[1.0, 0], [0, 1], [1, 1]]))
    np.testing.assert_allclose(kernel.dense(), [[2, 0, 1], [0, 2, -1], [1, -1, 4]], atol=1e-12)


@st.composite
def problems(draw):
    n, size, d = draw(st.integers(1, 9)), draw(st.integers(2, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    chosen = rng.integers(0, size, n)
    rejected = (chosen + rng.integers(1, size, n)) % size
    return chosen, rejected, size, rng.normal(size=(n, d)), rng


@settings(max_examples=80, deadline=None)
@given(problems())
def test_product_form_is_the_outer_product_it_stands_for(problem):
    """Every map equals the one with (e_w - e_l) g^T written out; C is symmetric and positive semidefinite."""
    chosen, rejected, size, features, rng = problem
    phi = np.stack(
        [
            np.outer(np.eye(size)[w] - np.eye(size)[loser], g)
            for w, loser, g in zip(chosen, rejected, features, strict=True)
        ]
    )
    gram = np.einsum("ikd,jkd->ij", phi, phi)
    coordinates, basis = answer_coordinates(chosen, rejected, size)
    kernel = PairKernel(answers=coordinates, features=features)
    values = rng.normal(size=len(chosen))
    np.testing.assert_allclose(coordinates @ basis.T, phi.sum(axis=2) / features.sum(axis=1)[:, None], atol=1e-6)
    np.testing.assert_allclose(
        coordinates @ coordinates.T, preference_sharing(chosen, rejected, chosen, rejected), atol=1e-9
    )
    np.testing.assert_allclose(kernel.dense(), gram, atol=1e-9)
    np.testing.assert_allclose(kernel.matvec(values), gram @ values, atol=1e-9)
    np.testing.assert_allclose(kernel.diagonal(), np.diag(gram), atol=1e-9)
    np.testing.assert_allclose(basis @ kernel.adjoint(values), np.einsum("i,ikd->kd", values, phi), atol=1e-9)
    spectrum = np.linalg.eigvalsh(gram)
    assert spectrum[0] > -1e-9
    assert kernel.largest_eigenvalue() == pytest.approx(spectrum[-1], rel=1e-9, abs=1e-9)


def test_weights_enter_the_kernel_by_their_roots():
    """sqrt(w_i w_j) C_ij is similar to the curvature diag(w) C of a weighted loss: the same largest eigenvalue."""
    rng = np.random.default_rng(5)
    kernel = PairKernel(answers=rng.normal(size=(7, 2)), features=rng.normal(size=(7, 3)))
    weight = np.array([9.0, 0.25, 1.0, 4.0, 0.01, 2.0, 16.0])
    weighted = kernel.weighted(weight)
    np.testing.assert_allclose(weighted.dense(), np.sqrt(np.outer(weight, weight)) * kernel.dense(), rtol=1e-12)
    curvature = np.linalg.eigvals(np.diag(weight) @ kernel.dense()).real.max()
    assert weighted.largest_eigenvalue() == pytest.approx(curvature, rel=1e-12)


def test_the_largest_eigenvalue_by_lanczos_equals_the_dense_one():
    """More than 64 rows and columns: Lanczos, against NumPy on the whole matrix; float32 features to six digits."""
    rng = np.random.default_rng(0)
    kernel = PairKernel(answers=rng.normal(size=(150, 2)), features=rng.normal(size=(150, 90)) + 0.3)
    exact = np.linalg.eigvalsh(kernel.dense())[-1]
    assert kernel.largest_eigenvalue() == pytest.approx(exact, rel=1e-10)
    rounded = PairKernel(answers=kernel.answers, features=kernel.features.astype(np.float32))
    assert rounded.largest_eigenvalue() == pytest.approx(exact, rel=1e-5)


def test_the_same_lines_run_on_torch():
    """Array API: a torch kernel gives the numbers of the NumPy one."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    answers, features, values = rng.normal(size=(6, 2)), rng.normal(size=(6, 3)), rng.normal(size=6)
    plain = PairKernel(answers=answers, features=features)
    other = PairKernel(answers=torch.tensor(answers), features=torch.tensor(features))
    np.testing.assert_allclose(other.matvec(torch.tensor(values)).numpy(), plain.matvec(values), atol=1e-12)
    np.testing.assert_allclose(other.diagonal().numpy(), plain.diagonal(), atol=1e-12)
    np.testing.assert_allclose(DPO().push(torch.tensor(values)).numpy(), DPO().push(values), atol=1e-15)


@given(st.floats(-30, 30))
def test_push_is_minus_the_slope_and_curvature_bounds_it(margin):
    """h = -f' by central differences, and |f''| never above the stated 1/4."""
    dpo, step = DPO(), 1e-4
    f = lambda r: float(dpo.loss(np.array([r]))[0])  # noqa: E731
    slope = (f(margin + step) - f(margin - step)) / (2 * step)
    push = float(dpo.push(np.array([margin]))[0])
    assert push == pytest.approx(-slope, abs=1e-7)
    assert push * (1 - push) <= dpo.curvature + 1e-15


def test_both_tails_are_exact_without_overflow():
    """At ±1e4 nothing overflows or warns; at 40 the push is e^-40, where 1 - sigmoid would be 0."""
    dpo = DPO()
    np.testing.assert_allclose(dpo.loss(np.array([-1e4, 0.0, 1e4])), [1e4, LOG2, 0.0], atol=1e-300)
    np.testing.assert_allclose(dpo.push(np.array([-1e4, 40.0])), [1.0, np.exp(-40.0)], rtol=1e-12)


def test_an_unknown_objective_names_the_nearest():
    with pytest.raises(ConfigError, match=r"objective 'sigmiod' is unknown; did you mean 'sigmoid'\?"):
        objective("sigmiod", beta=0.1)
