"""Packed rows: what a state sees is its own text, whole, once, in order; and little else is in a row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.models.log_probs import _seen
from prefdyn.models.packing import Text, cheapest, common_prefix, distribute, lay_out, row_length

TOKENS = st.integers(0, 2)
TEXTS = st.lists(
    st.tuples(
        st.lists(TOKENS, min_size=1, max_size=7).map(tuple),
        st.lists(TOKENS, max_size=5).map(tuple),
        st.lists(TOKENS, max_size=5).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


def read_back(layout):
    """Tokens and positions that each wanted state sees, by position."""
    seen = _seen(torch.from_numpy(layout.owner), torch.from_numpy(layout.part))[:, 0].numpy()
    found = []
    for place in layout.index.tolist():
        row, column = divmod(place, layout.ids.shape[1])
        at = np.flatnonzero(seen[row, column])
        at = at[np.argsort(layout.places[row, at], kind="stable")]
        assert column in at
        found.append((layout.ids[row, at].tolist(), layout.places[row, at].tolist()))
    return found


@settings(deadline=None)
@given(TEXTS, st.booleans(), st.sampled_from([None, 4, 20]), st.sampled_from([None, 1, 2, 3]))
def test_a_state_sees_its_own_text_and_nothing_else(given_texts, share_prefix, room, rows):
    """The prompt, and of its own response what comes before the token that it predicts."""
    texts = [Text(prompt=prompt, chosen=chosen, rejected=rejected) for prompt, chosen, rejected in given_texts]
    layout = lay_out(texts, width=4, room=room, share_prefix=share_prefix, answers=False, rows=rows)
    wanted = [
        [*text.prompt, *getattr(text, side)[:count]]
        for side in ("chosen", "rejected")
        for text in texts
        for count in range(len(getattr(text, side)) + 1)
    ]
    assert read_back(layout) == [(tokens, list(range(len(tokens)))) for tokens in wanted]
    assert layout.prefix == (common_prefix([text.prompt for text in texts]) if share_prefix and len(texts) > 1 else 0)


@settings(deadline=None)
@given(TEXTS)
def test_of_answers_the_state_after_the_prompt_is_wanted(given_texts):
    texts = [Text(prompt=prompt) for prompt, _, _ in given_texts]
    layout = lay_out(texts, width=4, room=None, share_prefix=True, answers=True)
    assert [tokens for tokens, _ in read_back(layout)] == [list(text.prompt) for text in texts]


def test_the_check_above_can_fail():
    """A rejected response that saw the chosen one, or a neighbour, would be found."""
    texts = [Text(prompt=(0, 1), chosen=(2, 2), rejected=(1,)), Text(prompt=(0, 2), chosen=(), rejected=(2, 1))]
    layout = lay_out(texts, width=64, room=None, share_prefix=True, answers=False, rows=1)
    right = read_back(layout)
    for array, value in ((layout.part, 0), (layout.owner, 0)):
        kept = array.copy()
        array[:] = value
        assert read_back(layout) != right
        array[:] = kept
    assert read_back(layout) == right


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 10), st.sampled_from([None, 5, 40]))
def test_every_pair_is_in_one_row_and_rows_keep_to_the_room(sizes, rows, room):
    held = distribute(np.asarray(sizes), rows, room)
    assert sorted(pair for row in held for pair in row) == list(range(len(sizes)))
    if room is not None:
        assert all(sum(sizes[pair] for pair in row) <= max(room, max(sizes)) for row in held)
    else:
        assert len(held) == min(rows, len(sizes))


def test_equal_pairs_without_a_prefix_get_rows_of_their_own():
    """Longer rows would cost more attention and save nothing."""
    assert len(cheapest(np.full(32, 28), skip=0, width=512)) == 32


def test_ragged_pairs_leave_little_padding():
    """In rows as long as the longest, two fifths of the numbers would be padding."""
    sizes = np.random.default_rng(0).integers(5, 60, 32)
    held = cheapest(sizes, skip=0, width=512)
    packed = len(held) * max(int(sizes[row].sum()) for row in held)
    assert packed < 1.06 * sizes.sum() < 0.62 * len(sizes) * sizes.max()


@pytest.mark.parametrize(("skip", "width"), [(16, 512), (12, 128), (100, 4096)])
def test_a_prefix_asks_for_rows_of_the_length_that_costs_least(skip, width):
    """T tokens in rows of R cost T R (1 + R / 4d) / (R - p), least at R = p + sqrt(p (p + 4d))."""
    best = skip + np.sqrt(skip * (skip + 4 * width))
    sizes = np.full(4000, 7)
    held = cheapest(sizes, skip=skip, width=width)
    length = skip + max(int(sizes[row].sum()) for row in held)
    assert length == pytest.approx(best, rel=0.1)
    assert row_length(7, skip, width) == pytest.approx(best, abs=1)
    limited = cheapest(sizes, skip=skip, width=width, room=int(best / 2))
    assert skip + max(int(sizes[row].sum()) for row in limited) <= best / 2


def test_common_prefix_leaves_every_prompt_a_token():
    assert common_prefix([(1, 2, 3), (1, 2)]) == 1
    assert common_prefix([(1, 2), (1, 2)]) == 1
    assert common_prefix([(1, 2), (2, 2)]) == 0
    assert common_prefix([(5,), (5, 6)]) == 0
