"""Small work is done by one thread, whoever asks; its last digits do not tell how many processors there are."""

import gc

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from prefdyn._progress import frameworks
from prefdyn._threads import _BRIEF, _SMALL, brief_products, small_work
from prefdyn.dynamics import engine
from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.spaces import Products
from prefdyn.maths.objectives import DPO
from prefdyn.planning.audit import audit
from prefdyn.synthetic import gaussian_groups


def blas() -> set[int]:
    """Threads of all linear algebra that is loaded: NumPy's, and SciPy's, which is another."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize(("within", "limit"), [(small_work, _SMALL), (brief_products, _BRIEF)])
def test_small_work_has_one_thread_and_large_work_all(within, limit):
    with threadpool_limits(2, user_api="blas"):
        with within(limit):
            assert blas() == {1}
        with within(limit + 1):
            assert blas() == {2}
        assert blas() == {2}


def test_each_step_of_a_run_is_made_by_one_thread(monkeypatch):
    seen = []
    gradient = Products.gradient

    def watched(self, *args):
        seen.append(blas())
        return gradient(self, *args)

    monkeypatch.setattr(Products, "gradient", watched)
    with threadpool_limits(2, user_api="blas"):
        descent(gaussian_groups(30, groups=2, width=4), DPO(), learning_rate=1.0, steps=3)
        assert set().union(*seen) == {1}
        seen.clear()
        monkeypatch.setattr(engine, "brief_products", lambda _: brief_products(_BRIEF + 1))
        descent(gaussian_groups(30, groups=2, width=4), DPO(), learning_rate=1.0, steps=3)
        assert set().union(*seen) == {2}, "the test sees how many there are"


def test_an_audit_is_the_same_to_the_last_digit_by_one_thread_and_by_two():
    feats = gaussian_groups(400, groups=3, width=40, half_gap=[2.0, 0.5, 0.0], seed=1)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(audit(feats, steps=20, progress=False))
    one, two = found
    assert one.rows() == two.rows()
    for name in one.pairs().column_names:
        np.testing.assert_array_equal(one.pairs()[name].to_pylist(), two.pairs()[name].to_pylist())


def test_garbage_is_looked_for_again_after_an_import_that_fails():
    assert gc.isenabled()
    with pytest.raises(ImportError, match="not looked for"):
        _import_that_fails()
    assert gc.isenabled()


@frameworks()
def _import_that_fails():
    raise ImportError("looked for" if gc.isenabled() else "not looked for")
