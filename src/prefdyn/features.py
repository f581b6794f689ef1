r"""FeatureSet: what the head of a model sees of each preference pair.

Two kinds, one algebra (see `prefdyn.maths.kernel`):

- `answers`: chosen and rejected are one token each. `states` holds the final-norm state at the last prompt token;
  the pair feature $(e_w - e_l) g^\top$ is never formed.
- `responses`: anything longer. `chosen_features` and `rejected_features` hold $\psi(\text{chosen})$ and
  $\psi(\text{rejected})$ (sketched), `states` the mean chosen state minus the mean rejected state, and
  `chosen_states` the mean chosen state alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn._arrays import finite
from prefdyn.data.codes import factors
from prefdyn.errors import DataError
from prefdyn.maths.kernel import PairKernel, answer_coordinates
from prefdyn.provenance import Provenance

Kind = Literal["answers", "responses"]
ArrayLike = Any
"""An array, or a (nested) sequence that NumPy can make one of."""


class Answers(NamedTuple):
    """The two answers of some pairs: indices of their tokens, and which of the pairs chooses the first."""

    low: int
    high: int
    positive: Bool[np.ndarray, " size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """Features, labels and reference log-probabilities of n pairs in m groups. Arrays are read-only."""

    kind: Kind
    states: Float[np.ndarray, "n d"]
    """float32. What probes, cosines and pictures use."""
    group: Int[np.ndarray, " n"]
    """Index into `groups`."""
    groups: tuple[str, ...]
    held_out: Bool[np.ndarray, " n"]
    """True where the pair is kept from training and simulation."""
    id: np.ndarray
    """(n,) strings, unique."""
    weight: Float[np.ndarray, " n"]
    """Weight of the pair in the training loss, above 0; 1 unless the data says otherwise."""
    text: Int[np.ndarray, " n"]
    """Equal integers mark pairs with the same prompt, so that no probe is tested on a prompt it was fitted on."""
    cluster: Int[np.ndarray, " n"]
    """Equal integers mark pairs that hang together: of one prompt, of near duplicates of it, or of one row of the data.
    What is drawn for a null or an interval is whole clusters."""
    ref_chosen_logps: Float[np.ndarray, " n"] | None = None
    """Reference log-probability of the chosen response in nats, at most 0; None where no reference is known."""
    ref_rejected_logps: Float[np.ndarray, " n"] | None = None
    chosen_length: Int[np.ndarray, " n"]
    """Tokens in the chosen response."""
    rejected_length: Int[np.ndarray, " n"]

    # answers only
    chosen: Int[np.ndarray, " n"] | None = None
    """Index of the chosen token in `tokens`."""
    rejected: Int[np.ndarray, " n"] | None = None
    tokens: tuple[str, ...] = ()
    """The k answer tokens that occur, as text. In two-answer data the positive one comes first."""
    token_ids: tuple[int, ...] = ()
    head: Float[np.ndarray, "k d"] | None = None
    """Head rows of `tokens`; None where the features came without a model."""
    head_bias: Float[np.ndarray, " k"] | None = None

    # responses only
    chosen_features: Float[np.ndarray, "n f"] | None = None
    rejected_features: Float[np.ndarray, "n f"] | None = None
    chosen_states: Float[np.ndarray, "n d"] | None = None
    """Mean state that predicts the chosen response's tokens; None where it is not known."""
    per_token: bool = False
    """Whether the margin averages each response's log-ratio over its tokens; see `averaged`."""

    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is not None and value.flags.writeable:
                value.flags.writeable = False

    def __len__(self) -> int:
        return len(self.group)

    def __repr__(self) -> str:
        return f"FeatureSet({self.kind}, {len(self)} pairs, {len(self.groups)} groups, width {self.states.shape[1]})"

    @classmethod
    def from_arrays(
        cls,
        features: ArrayLike | None = None,
        *,
        chosen: ArrayLike | None = None,
        rejected: ArrayLike | None = None,
        chosen_features: ArrayLike | None = None,
        rejected_features: ArrayLike | None = None,
        chosen_states: ArrayLike | None = None,
        group: ArrayLike | None = None,
        held_out: ArrayLike | None = None,
        id: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        text: ArrayLike | None = None,
        cluster: ArrayLike | None = None,
        ref_chosen_logps: ArrayLike | None = None,
        ref_rejected_logps: ArrayLike | None = None,
        chosen_length: ArrayLike | None = None,
        rejected_length: ArrayLike | None = None,
        tokens: Sequence[Any] | None = None,
        token_ids: Sequence[int] = (),
        head: ArrayLike | None = None,
        head_bias: ArrayLike | None = None,
        provenance: Provenance | None = None,
    ) -> "FeatureSet":
        """A FeatureSet from your own arrays.

        One-token answers: `features` (n, d), `chosen` and `rejected` (n,) answers of any hashable type. Longer
        responses: `chosen_features` and `rejected_features` (n, f), and `features` (n, d) states if you have them.
        Arrays are copied, unless they are read-only and float32 already, such as `np.load(path, mmap_mode="r")`.

        Args:
            features: One state per pair.
            chosen: The chosen answer of each pair.
            rejected: The rejected answer of each pair; must differ from the chosen one.
            chosen_features: Gradient feature of each chosen response.
            rejected_features: Gradient feature of each rejected response.
            chosen_states: (n, d) mean state of each chosen response, if you have them; `features` are then those minus
                the mean states of the rejected responses.
            group: A name per pair; without it every pair is in the group `all`.
            held_out: True for pairs to keep from training; without it none is.
            id: Unique strings; without it "0", "1", ….
            weight: Weight of each pair in the loss, above 0.
            text: Equal integers for pairs with the same prompt; without it all prompts differ.
            cluster: Equal integers for pairs that hang together; without it those with the same prompt.
            ref_chosen_logps: Reference log-probability of each chosen response, nats.
            ref_rejected_logps: Reference log-probability of each rejected response, nats.
            chosen_length: Tokens in each chosen response; 1 unless given.
            rejected_length: Tokens in each rejected response; 1 unless given.
            tokens: The answers that occur, in the order to keep (positive first); without it, sorted.
            token_ids: Vocabulary ids of `tokens`.
            head: (k, d) head rows of `tokens`.
            head_bias: (k,) head bias of `tokens`.
            provenance: Where the arrays came from.

        Raises:
            DataError: Shapes differ, a value is not finite, an answer is its own alternative, or ids repeat.

        Example:
            >>> feats = FeatureSet.from_arrays(np.eye(4), chosen=[1, 1, 0, 0], rejected=[0, 0, 1, 1])
            >>> feats.kernel().diagonal().round(9).tolist()
            [2.0, 2.0, 2.0, 2.0]
        """
        answers = chosen is not None or rejected is not None
        kernel_features = features if answers else chosen_features
        if kernel_features is None:
            raise DataError(
                "from_arrays was given no features; give `features`, `chosen` and `rejected` for one-token answers, "
                "or `chosen_features` and `rejected_features` for longer responses"
            )
        n = len(kernel_features)
        if n == 0:
            raise DataError("from_arrays was given 0 pairs; give at least one row")
        names = _column("group", group, n, default=["all"] * n)
        groups = tuple(dict.fromkeys(str(name) for name in names))
        code = {name: index for index, name in enumerate(groups)}
        ids = np.asarray([str(i) for i in _column("id", id, n, default=range(n))])
        if len(np.unique(ids)) < n:
            raise DataError(f"ids repeat: {n} pairs have {len(np.unique(ids))} different ids; make each unique")
        weights = np.asarray(_column("weight", weight, n, default=np.ones(n)), dtype=np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise DataError(f"weights must be finite and above 0, the smallest is {weights.min()}")

        common: dict[str, Any] = {
            "group": np.asarray([code[str(name)] for name in names], dtype=np.int32),
            "groups": groups,
            "held_out": np.asarray(_column("held_out", held_out, n, default=np.zeros(n)), dtype=bool),
            "id": ids,
            "weight": weights,
            "text": np.asarray(_column("text", text, n, default=np.arange(n)), dtype=np.int64),
            "cluster": np.asarray(
                _column("cluster", text if cluster is None else cluster, n, default=np.arange(n)), dtype=np.int64
            ),
            "ref_chosen_logps": _matrix("ref_chosen_logps", ref_chosen_logps, n, ndim=1, dtype=np.float64),
            "ref_rejected_logps": _matrix("ref_rejected_logps", ref_rejected_logps, n, ndim=1, dtype=np.float64),
            "chosen_length": np.asarray(_column("chosen_length", chosen_length, n, default=np.ones(n)), dtype=np.int32),
            "rejected_length": np.asarray(
                _column("rejected_length", rejected_length, n, default=np.ones(n)), dtype=np.int32
            ),
            "provenance": provenance or Provenance(),
        }
        if not answers:
            first = _matrix("chosen_features", chosen_features, n)
            second = _matrix("rejected_features", rejected_features, n)
            if first is None or second is None or first.shape != second.shape:
                raise DataError("chosen_features and rejected_features must both be given, with the same shape")
            states = _matrix("features", features, n)
            return cls(
                kind="responses",
                states=first - second if states is None else states,
                chosen_features=first,
                rejected_features=second,
                chosen_states=_matrix("chosen_states", chosen_states, n),
                **common,
            )

        won, lost = list(_column("chosen", chosen, n)), list(_column("rejected", rejected, n))
        same = next((row for row in range(n) if won[row] == lost[row]), None)
        if same is not None:
            raise DataError(f"row {same}: chosen and rejected are both {won[same]!r}; a pair needs two answers")
        order = list(tokens) if tokens is not None else sorted(set(won) | set(lost), key=str)
        index = {token: place for place, token in enumerate(order)}
        unknown = next((token for token in [*won, *lost] if token not in index), None)
        if unknown is not None:
            raise DataError(f"answer {unknown!r} is not among tokens={order}; list every answer that occurs")
        states = _matrix("features", features, n)
        assert states is not None
        return cls(
            kind="answers",
            states=states,
            chosen=np.asarray([index[token] for token in won], dtype=np.int32),
            rejected=np.asarray([index[token] for token in lost], dtype=np.int32),
            tokens=tuple(str(token) for token in order),
            token_ids=tuple(token_ids),
            head=_matrix("head", head, len(order)),
            head_bias=_matrix("head_bias", head_bias, len(order), ndim=1),
            **common,
        )

    # views ------------------------------------------------------------------------------------------------------

    def select(self, index: Any) -> "FeatureSet":
        """Some of the pairs, by slice, mask or integer index. Groups keep their codes, also when empty."""
        picked = {name: value[index] for name in _PER_PAIR if (value := getattr(self, name)) is not None}
        return replace(self, **picked)

    def members(self, group: int | str) -> Int[np.ndarray, " size"]:
        """Row numbers of one group, by index or name."""
        code = self.groups.index(group) if isinstance(group, str) else group
        return np.flatnonzero(self.group == code)

    def by_group(self) -> "list[Int[np.ndarray, ' size']]":
        """Row numbers of every group, in the order of `groups`: `members` of all of them in one pass.

        Example:
            >>> feats = FeatureSet.from_arrays(np.eye(3), chosen=[1, 1, 1], rejected=[0, 0, 0], group=["b", "a", "b"])
            >>> [rows.tolist() for rows in feats.by_group()]
            [[0, 2], [1]]
        """
        order = np.argsort(self.group, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.group, minlength=len(self.groups)))[:-1])

    def with_held_out(self, held_out: Bool[np.ndarray, " n"]) -> "FeatureSet":
        """The same features under another split."""
        return replace(self, held_out=np.asarray(held_out, dtype=bool))

    def weighted(self, groups: Mapping[str, float]) -> "FeatureSet":
        """The same features, the weights of these groups multiplied by a factor each.

        Raises:
            DataError: A group is unknown.
            ConfigError: A factor is not above 0.
        """
        return replace(self, weight=self.weight * factors(self.groups, groups)[self.group])

    def averaged(self) -> "FeatureSet":
        """The same pairs as an objective sees them that averages log-ratios over tokens, such as TRL's `ipo`.

        Pair features become ψ(chosen) / tokens − ψ(rejected) / tokens; what moves a response's own log-probability
        stays. One-token answers stay as they are.
        """
        return replace(self, per_token=self.kind == "responses")

    def flipped(self, rows: Bool[np.ndarray, " n"] | None = None) -> "FeatureSet":
        """The same pairs with chosen and rejected changed over, all or some of them: what reading them so would give.

        Args:
            rows: True where a pair is changed over; None: every one.
        """
        turn = np.ones(len(self), dtype=bool) if rows is None else np.asarray(rows, dtype=bool)
        states, alone = self.states, self.chosen_states
        if self.kind == "responses":  # those are chosen minus rejected
            alone = None if alone is None else np.where(turn[:, None], alone - states, alone)
            states = np.where(turn[:, None], -states, states)
        sides = {name: _where(turn, getattr(self, other), getattr(self, name)) for name, other in _SIDES.items()}
        return replace(self, states=states, chosen_states=alone, **sides)

    # algebra ----------------------------------------------------------------------------------------------------

    def coordinates(self) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "k p"]]:
        """Token coordinates of each pair and their basis (see `answer_coordinates`); ones for `responses`."""
        if self.chosen is None or self.rejected is None:
            return np.ones((len(self), 1)), np.ones((0, 1))
        return answer_coordinates(self.chosen, self.rejected, len(self.tokens))

    def kernel(self, dtype: Any = np.float64) -> PairKernel:
        """The margin kernel of all pairs. `dtype` is that of the features; float64 unless memory forbids."""
        answers, _ = self.coordinates()
        return PairKernel(answers=answers.astype(dtype), features=self.pair_features(slice(None), dtype))

    def pair_features(self, rows: Any, dtype: Any) -> Float[np.ndarray, "size d"]:
        """The features of some pairs, by slice, mask or integer index, as `kernel` has those of all."""
        if self.chosen_features is None or self.rejected_features is None:
            return self.states[rows].astype(dtype)
        features, rejected = self.chosen_features[rows].astype(dtype), self.rejected_features[rows]
        if self.per_token:
            features = features / self.chosen_length[rows, None].astype(dtype)
            features -= rejected / self.rejected_length[rows, None].astype(dtype)
        else:
            features -= rejected
        return features

    def kernel_blocks(self, rows: Int[np.ndarray, " size"]) -> "Iterator[tuple[slice, PairKernel]]":
        """The kernel of some pairs in `working_dtype`, piece by piece: where in `rows`, and the kernel of those.

        One piece, unless their features take over 2 GiB: then nothing larger than a piece of them is ever in memory.
        """
        answers = self.coordinates()[0].astype(self.working_dtype)
        bytes_of_row = self.kernel_width * self.working_dtype.itemsize
        held = len(rows) * bytes_of_row <= _FLOAT64_BYTES
        step = len(rows) if held else max(1, _PIECE_BYTES // bytes_of_row)
        for start in range(0, len(rows), max(1, step)):
            some = rows[start : start + step]
            whole = len(some) and some[-1] - some[0] == len(some) - 1 and (np.diff(some) == 1).all()
            picked = slice(int(some[0]), int(some[-1]) + 1) if whole else some
            features = self.pair_features(picked, self.working_dtype)
            yield slice(start, start + len(some)), PairKernel(answers=answers[some], features=features)

    @property
    def kernel_width(self) -> int:
        """Numbers per pair that every product reads: of a state, or of a longer response's sketch."""
        return (self.states if self.chosen_features is None else self.chosen_features).shape[1]

    @property
    def working_dtype(self) -> np.dtype:
        """float64, or float32 where float64 features would take over 2 GiB."""
        return np.dtype(np.float32 if len(self) * self.kernel_width * 8 > _FLOAT64_BYTES else np.float64)

    @property
    def in_pieces(self) -> bool:
        """Whether all features in `working_dtype` take over 2 GiB, so that they are read piece by piece."""
        return len(self) * self.kernel_width * self.working_dtype.itemsize > _FLOAT64_BYTES

    def working_kernel(self) -> PairKernel:
        """The margin kernel in `working_dtype`."""
        return self.kernel(self.working_dtype)

    def two_answers(self, rows: Int[np.ndarray, " size"]) -> "Answers | None":
        """The two answers among some rows; None where there are more, or none (`responses`), or no rows."""
        if self.chosen is None or self.rejected is None or len(rows) == 0:
            return None
        chosen, rejected = self.chosen[rows], self.rejected[rows]
        low, high = np.minimum(chosen, rejected), np.maximum(chosen, rejected)
        if (low != low[0]).any() or (high != high[0]).any():
            return None
        return Answers(int(low[0]), int(high[0]), chosen == low[0])

    def signs(self, group: int | str) -> Int[np.ndarray, " size"] | None:
        """+1 / -1 for each pair of a two-answer group, +1 where the first of its two tokens is chosen.

        None where the group has more than two answers, or none (`responses`).
        """
        answers = self.two_answers(self.members(group))
        return None if answers is None else np.where(answers.positive, 1, -1)

    def answer_log_probs(self) -> Float[np.ndarray, "n k"] | None:
        """Reference log-probability of every answer token that occurs; None where it cannot be known.

        From the head rows, or, where only two tokens occur, from the two reference log-probabilities themselves.
        """
        if self.ref_chosen_logps is None or self.ref_rejected_logps is None or self.chosen is None:
            return None
        if len(self.tokens) == 2:
            first = self.chosen == 0
            given = (self.ref_chosen_logps, self.ref_rejected_logps)
            return np.stack([np.where(first, *given), np.where(first, *given[::-1])], axis=1)
        if self.head is None:
            return None
        logits = self.states.astype(np.float64) @ self.head.astype(np.float64).T
        if self.head_bias is not None:
            logits += self.head_bias
        rows = np.arange(len(self))
        return logits - (logits[rows, self.chosen] - self.ref_chosen_logps)[:, None]


_FLOAT64_BYTES = 2 * 2**30
_PIECE_BYTES = 2**27
_PER_PAIR = (
    "states",
    "group",
    "held_out",
    "id",
    "weight",
    "text",
    "cluster",
    "ref_chosen_logps",
    "ref_rejected_logps",
    "chosen_length",
    "rejected_length",
    "chosen",
    "rejected",
    "chosen_features",
    "rejected_features",
    "chosen_states",
)
_SIDES = {
    "chosen": "rejected",
    "rejected": "chosen",
    "chosen_features": "rejected_features",
    "rejected_features": "chosen_features",
    "chosen_length": "rejected_length",
    "rejected_length": "chosen_length",
    "ref_chosen_logps": "ref_rejected_logps",
    "ref_rejected_logps": "ref_chosen_logps",
}
"""What a pair has on either side, and its place on the other."""
_ARRAYS = (*_PER_PAIR, "head", "head_bias")


def _column(name: str, values: Any, n: int, *, default: Any = None) -> Any:
    if values is None:
        if default is None:
            raise DataError(f"{name} is missing; give one value per pair ({n})")
        return default
    if len(values) != n:
        raise DataError(f"{name} has {len(values)} values for {n} pairs; give one value per pair")
    return values


def _matrix(name: str, values: Any, n: int, *, ndim: int = 2, dtype: Any = np.float32) -> np.ndarray | None:
    if values is None:
        return None
    kept = isinstance(values, np.ndarray) and values.dtype == dtype and not values.flags.writeable
    array = values if kept else np.array(values, dtype=dtype)
    if array.ndim != ndim or len(array) != n:
        raise DataError(f"{name} has shape {array.shape}, but must have {ndim} axes and {n} rows")
    return finite(array, name=name, fix="check the model's weights and dtype")


def _where(turn: Bool[np.ndarray, " n"], value: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    """Rows of the one where True, else of the other; None where a row that is asked for is not known."""
    if turn.all():
        return value
    if not turn.any():
        return other
    if value is None or other is None:
        return None
    return np.where(turn.reshape(-1, *[1] * (value.ndim - 1)), value, other)


def describe(feats: FeatureSet) -> Mapping[str, Any]:
    """The `features` part of `summary.json`."""
    return {
        "kind": feats.kind,
        "sketch": feats.provenance.settings.get("sketch"),
        "sketch_error": feats.provenance.settings.get("sketch_error"),
        "answers": list(feats.tokens),
        "width": feats.states.shape[1],
        "pairs": len(feats),
        "held_out": int(feats.held_out.sum()),
    }
