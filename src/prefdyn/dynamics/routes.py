r"""Four exact ways to carry R heads through descent at once, and which of them costs least.

All hold the change of R heads as one array with a leading run axis, and offer the same few maps. With pair features
$\phi_i = a_i \otimes g_i$ (see `prefdyn.maths.kernel`) a step needs the log-ratio changes
$u_i = \langle \phi_i, \theta \rangle$ and the sum $\sum_i v_i \phi_i$ of what the pairs pull.

| route | what is held | exact for | products per step and run |
|---|---|---|---|
| `weights` | $\theta$ in the answers' orthonormal coordinates, (p, d) | SGD, momentum, Nesterov | 4 n p d |
| `rows` | the head rows of the k tokens that occur, (k, d) | every optimizer | 4 n k d (4 n d for two tokens) |
| `reduced` | `weights` with features rotated into their row space, (p, rank) | SGD, momentum, Nesterov | 4 n p rank |
| `gram` | one coefficient per pair: $\theta = \sum_j \alpha_j \phi_j$ | SGD, momentum, Nesterov | 2 n² |

**Why Adam needs rows.** Descent commutes with a rotation of its coordinates, so any orthonormal basis of the answer
differences gives the same path. Adam, AdamW and RMSprop divide coordinate by coordinate and do not: they have to run
on the numbers that a real training run would hold, the head rows. Rows of tokens that never occur have gradient 0 and
stay.

**Why two tokens need one row.** A pair's gradient on the row of token 0 is minus that on the row of token 1. Every
optimizer here is odd: with state 0 at the start, minus the gradients gives minus the updates. So the rows change by
$+w$ and $-w$ at every step, and $u_i = 2 s_i \langle w, g_i \rangle$. Weight decay is linear and splits the rows into
half their difference, which obeys this with half the difference of the reference rows, and half their sum, which no
margin sees.
"""

from typing import Any

import numpy as np

from prefdyn.dynamics.problem import Arrays, Pairs
from prefdyn.dynamics.spaces import Gram, Products, Route, as_numpy
from prefdyn.dynamics.streaming import FeatureRows
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet

ROUTES = ("weights", "rows", "reduced", "gram")

# choosing and building ----------------------------------------------------------------------------------------------

_KERNEL_BYTES = 2**30
_FLOPS_PER_BYTE = 5.0
"""Products that a processor does in the time that it reads one byte: about 100 GFLOP/s over 20 GB/s."""


def cheapest(
    pairs: Pairs, width: int, *, linear: bool, runs: int, steps: int, batch: int | None, itemsize: int, streamed: bool
) -> str:
    """The route that should take the least time, setting-up included.

    Args:
        pairs: The pairs of the runs.
        width: Numbers per feature.
        linear: Whether the optimizer's path is linear in past gradients (SGD, momentum, Nesterov, no weight decay).
        runs: Runs that go together.
        steps: Steps of each.
        batch: Pairs per step; None for all.
        itemsize: Bytes per number.
        streamed: Whether the features are too large for memory, which rules out a kernel.

    Example:
        >>> from prefdyn.features import FeatureSet
        >>> feats = FeatureSet.from_arrays(np.eye(4, 500), chosen=[0, 1, 0, 1], rejected=[1, 0, 1, 0])
        >>> common = {"runs": 8, "steps": 100, "batch": None, "itemsize": 8, "streamed": False}
        >>> [cheapest(Pairs.of(feats), 500, linear=linear, **common) for linear in (True, False)]
        ['gram', 'rows']
    """
    if not linear:
        return "rows"
    trained, p = len(pairs.train), pairs.answers.shape[1]
    seen = trained if batch is None else min(batch, trained)
    weights = steps * _seconds(4 * seen * p * width * runs, seen * width * itemsize)
    gram = steps * _seconds(2 * seen * trained * runs, seen * trained * itemsize)
    gram += _seconds(2 * len(pairs) * trained * width, len(pairs) * width * itemsize)
    fits = len(pairs) * trained * itemsize <= _KERNEL_BYTES
    return "gram" if fits and not streamed and gram < weights else "weights"


def _seconds(flops: float, read: float) -> float:
    """Time on a nominal processor, in its own unit."""
    return flops + _FLOPS_PER_BYTE * read


def build(
    feats: FeatureSet, pairs: Pairs, name: str, *, dtype: Any, arrays: Arrays | None = None, sft: bool = False
) -> Route:
    """The route of that name for some pairs.

    Args:
        feats: The features that `pairs` number.
        pairs: Trained and held-out pairs of the runs.
        name: One of `ROUTES`.
        dtype: float32 or float64: of the features and everything that meets them. Heads are kept in float64.
        arrays: Where to compute; NumPy if not given.
        sft: Whether pairs pull on logits, which takes all k rows.

    Raises:
        ConfigError: The name is unknown, or SFT is asked for along another route than `rows`.
    """
    if name not in ROUTES:
        raise ConfigError(f"route {name!r} is unknown; known: {', '.join(ROUTES)}")
    if sft and name != "rows":
        raise ConfigError(f"SFT pulls on the rows of tokens, so it cannot take the route {name!r}; use 'rows'")
    train, held = pairs.number[pairs.train], pairs.number[pairs.held_out]
    where: dict[str, Any] = {"dtype": dtype, "arrays": arrays}
    inside = FeatureRows.of(feats, train, **where)
    outside = FeatureRows.of(feats, held, **where) if len(held) else None

    forward = adjoint = pairs.answers
    to_answers, to_logits = np.eye(pairs.answers.shape[1]), pairs.basis
    if name == "rows" and pairs.tokens:
        differences, size = pairs.differences(), pairs.tokens
        if size == 2 and not sft:
            forward, adjoint, to_logits = 2 * differences[:, :1], differences[:, :1], np.array([[1.0], [-1.0]])
        else:
            forward, adjoint, to_logits = differences, differences, np.eye(size)
        to_answers = pairs.basis.T @ to_logits
    rotation = None
    if name == "reduced":
        inside, outside, rotation = _rotated(inside, outside, where)

    def put(values: np.ndarray) -> Any:
        cast = np.array(values, dtype=dtype)
        return cast if arrays is None else arrays(cast)

    responses = None
    if feats.chosen_features is not None:
        first, second = (
            FeatureRows.of(feats, pairs.number, response=response, held_bytes=0, **where)
            for response in ("chosen", "rejected")
        )
        responses = (first, second)
    products = Products(
        name=name,
        pairs=pairs,
        train=inside,
        held=outside,
        forward=put(forward[pairs.train]),
        adjoint=put(adjoint[pairs.train]),
        forward_held=put(forward[pairs.held_out]),
        to_answers=to_answers,
        to_logits=to_logits,
        rotation=rotation,
        responses=responses,
        on_logits=sft,
    )
    return Gram.of(products) if name == "gram" else products


def _rotated(
    inside: FeatureRows, outside: FeatureRows | None, where: dict[str, Any]
) -> tuple[FeatureRows, FeatureRows | None, np.ndarray]:
    """Trained features in an orthonormal basis of their row space; held-out ones as far as they lie in it."""
    whole = as_numpy(inside.block(0, len(inside)))
    if len(whole) > whole.shape[1]:
        whole = np.linalg.qr(whole, mode="r")
    _, sizes, directions = np.linalg.svd(whole, full_matrices=False)
    limit = max(len(inside), inside.width) * np.finfo(np.float64).eps * sizes[0]
    rotation = directions[sizes > limit].T
    arrays, dtype = where["arrays"], where["dtype"]

    def turned(rows: FeatureRows) -> FeatureRows:
        found = (as_numpy(rows.block(0, len(rows))) @ rotation).astype(dtype)
        return FeatureRows(
            first=found if arrays is None else arrays(found),
            second=None,
            index=None,
            dtype=np.dtype(dtype),
            arrays=arrays,
        )

    return turned(inside), None if outside is None else turned(outside), rotation
