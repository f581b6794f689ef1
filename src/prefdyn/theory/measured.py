"""What the statements are handed: settings, constants and outcomes, read from a FeatureSet and a Trajectory."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn.errors import DataError
from prefdyn.features import Answers, FeatureSet
from prefdyn.maths import geometry
from prefdyn.maths.kernel import PairKernel, preference_sharing
from prefdyn.theory.bound import Condition
from prefdyn.theory.gradient_field import LogProbRates
from prefdyn.theory.learning_dynamics import Constants
from prefdyn.theory.value_scaling import ClusterModel, delta_orthogonality, kernel_deviation, token_sharing
from prefdyn.trajectory import Trajectory

_SAMPLE = 1000
"""Rows from which a spread's effective rank and the kernel's deviation are measured."""
_FARTHEST = 700.0
"""Nats beyond which a ratio would be no number; the path stays there."""
_DEVIATIONS = 4.0
"""What would be 0 without noise may reach this many standard deviations of it and still count as 0."""


# the run ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConditions:
    """How the run was made, and what every statement asks of that."""

    beta: float
    learning_rate: float
    steps: int
    basis: Float[np.ndarray, "k p"]
    """Token coordinates in which the run's heads are written."""
    unlike: tuple[Condition, ...]
    """What every statement asks of the run and this one does not meet: another objective or optimizer."""
    unequal: tuple[Condition, ...]
    """That pairs weigh the same, where they do not; asked by all statements but those on any pairs."""

    @classmethod
    def of(cls, feats: FeatureSet, run: Trajectory) -> "RunConditions":
        """Read from a run on these features.

        Raises:
            DataError: A setting is missing, or the run has other groups or pairs than the features.
        """
        missing = [name for name in ("beta", "learning_rate", "steps") if run.settings.get(name) is None]
        if missing:
            raise DataError(f"the run's settings lack {missing}; give a run that descent or train made")
        strange = sorted(set(run.groups) - set(feats.groups))
        if strange:
            raise DataError(f"the run has a group {strange[0]!r} that the features lack; give the features it ran on")
        for step, margins in run.margins.items():
            if len(margins) != len(feats):
                raise DataError(f"the run kept {len(margins)} margins at step {step} for {len(feats)} pairs")
        expected = {"objective": "sigmoid", "optimizer": "sgd", "schedule": "constant", "batch_size": "full"}
        unlike = [
            Condition(says=f"{name.replace('_', ' ')} is {wanted}", measured=str(found), relation="=", limit=wanted)
            for name, wanted in expected.items()
            if (found := run.settings.get(name, wanted)) != wanted
        ]
        weights, unequal = feats.weight[~feats.held_out], []
        if np.ptp(weights) > 0:
            ratio = float(weights.max() / weights.min())
            unequal.append(Condition(says="pairs weigh the same: heaviest / lightest", measured=ratio, limit=1.0))
        return cls(
            beta=float(run.settings["beta"]),
            learning_rate=float(run.settings["learning_rate"]),
            steps=int(run.settings["steps"]),
            basis=feats.coordinates()[1],
            unlike=tuple(unlike),
            unequal=tuple(unequal),
        )


class PlanePath(NamedTuple):
    """The average pair of a run in the plane of 2404.04626: geometric means over the training pairs."""

    step: Int[np.ndarray, " s"]
    x1: Float[np.ndarray, " s"]
    r"""$\exp$ of the mean change of the chosen response's log-probability."""
    x2: Float[np.ndarray, " s"]
    """The same for the rejected response."""
    ref_chosen: float
    """Geometric mean of the chosen responses' reference probabilities; NaN where unknown."""
    ref_rejected: float


def plane_path(run: Trajectory) -> PlanePath | None:
    """Where the joint run's average training pair went; None where the run did not measure log-probabilities."""
    rows = run.where(run="joint", split="train")
    steps, pairs = rows["step"].to_numpy(), rows["pairs"].to_numpy().astype(float)
    places = np.unique(steps)

    def mean(quantity: str) -> np.ndarray:
        values = np.asarray(rows[quantity].to_numpy(zero_copy_only=False), dtype=np.float64)
        return np.array([np.average(values[steps == step], weights=pairs[steps == step]) for step in places])

    chosen, rejected = mean("chosen_change"), mean("rejected_change")
    if not len(places) or not (np.isfinite(chosen).all() and np.isfinite(rejected).all()):
        return None
    before = [math.exp(mean(f"{side}_log_prob")[0]) for side in ("chosen", "rejected")]
    x1, x2 = (np.exp(np.clip(change, -_FARTHEST, _FARTHEST)) for change in (chosen, rejected))
    return PlanePath(places, x1, x2, *before)


def first_step_rates(feats: FeatureSet) -> LogProbRates | None:
    r"""How fast each training pair's two log-probabilities start to move in the joint run, up to the factor $\beta$.

    $\langle \psi(y_j), \tfrac12 \sum_i p_i \phi_i \rangle$ with shares p; for one-token answers $\psi$ takes off what
    the softmax gives back. Linear in the pairs, where `log_prob_rates` takes the matrix of their similarities.

    Returns:
        Nats per unit of $\eta\beta$, or None where reference probabilities are unknown.

    Reference:
        2404.04626 in THEORY 4.6 (b), for any pair features.
    """
    train = np.flatnonzero(~feats.held_out)
    weight, dtype = feats.weight[train], feats.working_dtype
    head: Any = 0.0
    for where, kernel in feats.kernel_blocks(train):
        head = head + kernel.adjoint((weight[where] / weight.sum() / 2).astype(dtype))
    if feats.chosen_features is not None and feats.rejected_features is not None:
        given = (feats.chosen_features, feats.rejected_features)
        blocks = np.array_split(train, max(1, len(train) * given[0].shape[1] // _SIDE_CELLS))
        sides = [np.concatenate([features[rows] @ head[0] for rows in blocks]) for features in given]
        return LogProbRates(chosen=sides[0].astype(np.float64), rejected=sides[1].astype(np.float64))
    log_probs = feats.answer_log_probs()
    if log_probs is None or feats.chosen is None or feats.rejected is None:
        return None
    _, basis = feats.coordinates()
    tokens = (basis @ head).T.astype(dtype)
    logits = np.concatenate([kernel.features @ tokens for _, kernel in feats.kernel_blocks(train)]).astype(np.float64)
    mean = np.sum(np.exp(log_probs[train]) * logits, axis=1)
    rows = np.arange(len(train))
    return LogProbRates(
        chosen=logits[rows, feats.chosen[train]] - mean, rejected=logits[rows, feats.rejected[train]] - mean
    )


_SIDE_CELLS = 2**27
"""Numbers of one side that are in memory at once."""


# one group ----------------------------------------------------------------------------------------------------------


def without_noise(c: Constants) -> Constants:
    """The constants with the part of the gaps taken off that sampling adds on average; 0 where that is more than all.

    Plug-in gaps are those of the sample; theorems that speak of the distributions mean these.

    Example:
        >>> c = Constants(n_plus=2, n_minus=2, width=1, gap=2.0, weighted_gap=2.0, trace_plus=2.0, trace_minus=1.0,
        ...               op_norm=2.0, radius=2.0)
        >>> round(without_noise(c).gap, 6)  # sqrt(4 - 2/2 - 1/2)
        1.581139
    """
    return replace(
        c,
        gap=math.sqrt(max(0.0, c.gap**2 - c.noise**2)),
        weighted_gap=math.sqrt(max(0.0, c.weighted_gap**2 - c.weighted_noise**2)),
    )


def boundary(feats: FeatureSet, answers: Answers) -> Float[np.ndarray, " d"] | None:
    """$W_B$, the head row of the first answer minus that of the second; None where the features carry no head."""
    if feats.head is None:
        return None
    return feats.head[answers.low].astype(np.float64) - feats.head[answers.high]


def boundary_change(
    basis: Float[np.ndarray, "k p"], answers: Answers, head: Float[np.ndarray, "p d"]
) -> Float[np.ndarray, " d"]:
    """How far training moved the boundary, $2w(t)$ for a group alone; `basis` is that of `FeatureSet.coordinates`."""
    return (basis[answers.low] - basis[answers.high]) @ head


# all groups ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesFound:
    """A dataset seen as clusters, each group a value, in units of the mean half gap."""

    model: ClusterModel
    half_gap: float
    """In feature units: lengths of the model are multiples of it."""
    delta: float
    """How far the directions and the shared offset are from orthogonal (2408.03459, Definition C.1)."""
    conditions: tuple[Condition, ...]
    """What the cluster model asks of the data beyond `ClusterModel.conditions`, as measured."""
    deviation: float = math.nan
    """Largest distance of a kernel entry from its centre, in radii of Lemma B.1, over a sample of the pairs."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        names = ("values", "per_cluster", "width", "noise", "shared_norm", "sharing")
        return {name: getattr(self.model, name) for name in names} | {"half_gap": self.half_gap, "delta": self.delta}


def values_found(feats: FeatureSet) -> ValuesFound | None:
    """The training pairs as clusters, each group a value.

    None where a group has more than two answers, a class of a group under two pairs, or the classes no gap or spread.

    Reference:
        2408.03459, section 3 (data model); THEORY 3.1.
    """
    if feats.chosen is None:
        return None
    train = np.flatnonzero(~feats.held_out)
    group = feats.group[train]
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    for inside in parts:
        answers = feats.two_answers(train[inside])
        if answers is None or min(answers.positive.sum(), (~answers.positive).sum()) < 2:
            return None
    states = feats.states[train].astype(np.float64)
    positive = np.zeros(len(train), dtype=bool)
    tokens, counts, gaps, middles = [], [], [], []
    for inside in parts:
        answers = feats.two_answers(train[inside])
        if answers is None or min(answers.positive.sum(), (~answers.positive).sum()) < 2:
            return None
        positive[inside] = answers.positive
        tokens.append((answers.low, answers.high))
        counts += [int(answers.positive.sum()), int((~answers.positive).sum())]
        up, down = (states[inside[side]].mean(axis=0) for side in (answers.positive, ~answers.positive))
        gaps.append((up - down) / 2)
        middles.append((up + down) / 2)
    halves = np.linalg.norm(gaps, axis=1)
    shared, noise = geometry.shared_norm_and_spread(states, group, positive)
    if not (math.isfinite(shared) and noise > 0 and halves.min() > 0):
        return None
    sharing = token_sharing(tokens)
    model = ClusterModel(
        values=len(tokens),
        per_cluster=min(counts),
        width=states.shape[1],
        noise=noise,
        shared_norm=shared,
        sharing=sharing.sharing,
        distinct=sharing.distinct,
    )
    unit = float(halves.mean())
    directions = np.stack(gaps)
    offset = np.mean(middles, axis=0)
    rows = np.vstack([directions, offset]) if np.linalg.norm(offset) > 0 else directions
    return ValuesFound(
        model=model,
        half_gap=unit,
        delta=delta_orthogonality(rows),
        conditions=_cluster_conditions(model, states, group, positive, counts, halves / unit, rows),
        deviation=_deviation(feats, train, model, unit),
    )


def _cluster_conditions(
    model: ClusterModel,
    states: Float[np.ndarray, "n d"],
    group: Int[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    counts: list[int],
    halves: Float[np.ndarray, " k"],
    directions: Float[np.ndarray, "j d"],
) -> tuple[Condition, ...]:
    """Sizes, lengths, angles and shape of the clusters, each against what sampling noise alone allows."""
    stray = model.noise * model.noise / (2 * model.per_cluster)  # variance of one coordinate of a measured half gap
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    largest = _largest_cosine(unit)
    angle_noise = _DEVIATIONS * math.sqrt(2 * stray + model.width * stray * stray)
    room = _DEVIATIONS * math.sqrt(stray)
    found = [
        Condition(says="clusters of one size: largest / smallest", measured=max(counts) / min(counts), limit=1.0),
        Condition(
            says="gaps of one length: longest / shortest",
            measured=float(halves.max() / halves.min()),
            limit=(1 + room) / max(1 - room, 1e-9),
        ),
    ]
    if len(unit) > 1:
        found.append(Condition(says="orthogonal directions: largest |cos|", measured=largest, limit=angle_noise))
    picked = np.linspace(0, len(states) - 1, min(len(states), _SAMPLE)).astype(int)
    cluster = 2 * group + positive
    residuals = np.empty((len(picked), states.shape[1]))
    order = np.argsort(cluster, kind="stable")
    owner = cluster[picked]
    for members in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        inside = np.flatnonzero(owner == cluster[members[0]])
        if len(inside):
            residuals[inside] = states[picked[inside]] - states[members].mean(axis=0)
    isotropic = 1 / (1 / model.width + 1 / len(picked))
    rank = geometry.effective_rank(residuals)
    found.append(
        Condition(
            says="the same noise in every direction: effective rank", measured=rank, relation=">=", limit=isotropic / 2
        )
    )
    return tuple(found)


def _largest_cosine(unit: Float[np.ndarray, "j d"]) -> float:
    """Largest size of a cosine between two different rows, some rows at a time; 0 for one row."""
    most = 0.0
    for start in range(0, len(unit), _SAMPLE):
        products = np.abs(unit[start : start + _SAMPLE] @ unit.T)
        rows = np.arange(len(products))
        products[rows, start + rows] = 0.0
        most = max(most, float(products.max()))
    return most


def _deviation(feats: FeatureSet, train: np.ndarray, model: ClusterModel, half_gap: float) -> float:
    if not model.distinct or feats.chosen is None or feats.rejected is None:
        return math.nan
    rows = train[np.linspace(0, len(train) - 1, min(len(train), _SAMPLE)).astype(int)]
    answers, _ = feats.coordinates()
    kernel = PairKernel(answers=answers[rows], features=feats.states[rows].astype(np.float64) / half_gap)
    chosen, rejected = feats.chosen[rows], feats.rejected[rows]
    sharing = preference_sharing(chosen, rejected, chosen, rejected)
    return kernel_deviation(kernel.dense(), sharing, model)
