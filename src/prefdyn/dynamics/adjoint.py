r"""What if: the derivative of what a run ends with in every pair, group and setting that it was made of.

A run of `prefdyn.dynamics.sweep` is a fixed sequence of smooth maps, so one walk back through it
(`prefdyn.dynamics.backward`) gives the exact derivative of any held-out number in the weight of every training pair,
in group weights, $\beta$, learning rate and label smoothing, for all groups' numbers at once and at the cost of about
three runs. This is what influence functions and first-step gradients approximate.

**Which derivative of a weight.** A step's loss is a weighted mean, $\sum_i w_i f_i / \sum_j w_j$: more weight for one
pair is less share for the others. `Sensitivity.pair` moves the denominator too: it is what happens to the user's
training when a pair counts more, and, in the direction to 0, when it is dropped and the mean is taken over the rest.
`Sensitivity.pair_fixed` holds the denominator: the pair alone pulls more, nothing else changes. A pair that does as
much as the mean pair has `pair` 0, not `pair_fixed`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn._checks import at_least
from prefdyn._showing import Tabular
from prefdyn.dynamics.backward import Walk
from prefdyn.dynamics.descent import allowed, stable_learning_rate
from prefdyn.dynamics.engine import reference_state
from prefdyn.dynamics.grid import Setting, decays, grid
from prefdyn.dynamics.problem import Arrays, Pairs, as_seen, spread
from prefdyn.dynamics.routes import build
from prefdyn.dynamics.sampling import batches
from prefdyn.dynamics.spaces import Route
from prefdyn.dynamics.sweep import route_for
from prefdyn.dynamics.targets import reached, targets
from prefdyn.dynamics.transpose import seen_back
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, Objective, RobustDPO
from prefdyn.maths.objectives import objective as named_objective
from prefdyn.maths.optimizers import Optimizer, Schedule
from prefdyn.settings import Settings, opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity(Tabular):
    """Derivatives of T targets in what one run was made of. Units: those of the target per unit of what is changed."""

    targets: tuple[str, ...]
    quantity: str
    """What a target is a weighted sum of; one of `prefdyn.dynamics.targets.QUANTITIES`."""
    value: Float[np.ndarray, " T"]
    """The targets at the end of the run."""
    pair: Float[np.ndarray, "T n"]
    """In the weight of each pair, the mean kept a mean. NaN for pairs that the run does not train on."""
    pair_fixed: Float[np.ndarray, "T n"]
    """In the weight of each pair with the sum of all weights held."""
    group: Float[np.ndarray, "T groups"]
    """In a factor on the weights of all pairs of each group, at 1; NaN for groups without training pairs."""
    learning_rate: Float[np.ndarray, " T"]
    beta: Float[np.ndarray, " T"]
    label_smoothing: Float[np.ndarray, " T"] | None
    """None where the objective knows none."""
    weight: Float[np.ndarray, " n"]
    """Weights of the pairs, at which the derivatives are taken."""
    groups: tuple[str, ...]
    settings: Mapping[str, Any]
    """As `prefdyn.dynamics.sweep.sweep` names them."""
    states_held: int = field(repr=False)
    r"""The most states of the run in memory at once: at most $4 \lceil \sqrt{\text{steps}} \rceil$."""

    def dropped(self, masks: Bool[np.ndarray, "n subsets"]) -> Float[np.ndarray, "T subsets"]:
        r"""Foretold change of the targets where these pairs are left out: first order in the shares of the loss.

        With S the share of the weight that is left out, $-\sum_{i\,\text{out}} w_i \bar w_i / (1 - S)$. A re-run says
        what it truly is.

        Args:
            masks: True for the training pairs to leave out, one column per subset.

        Raises:
            DataError: A subset leaves nothing to train on, or names a pair that was not trained on.
        """
        trained = np.isfinite(self.pair[0])
        if masks[~trained].any():
            raise DataError("a subset names a pair that the run did not train on; leave out training pairs alone")
        share = self.weight[trained] @ masks[trained] / self.weight[trained].sum()
        if (share >= 1 - 1e-12).any():
            raise DataError("a subset leaves out every training pair, so no run is left; keep at least one")
        return -(self.pair[:, trained] * self.weight[trained]) @ masks[trained] / (1 - share)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per target and group: the target, its value, and the derivative in that group's weight."""
        return [
            {
                "target": name,
                "quantity": self.quantity,
                "value": float(self.value[place]),
                "group": group,
                "by_group_weight": None if math.isnan(self.group[place, code]) else float(self.group[place, code]),
            }
            for place, name in enumerate(self.targets)
            for code, group in enumerate(self.groups)
        ]


@dataclass(frozen=True, kw_only=True)
class HeadRun(Settings):
    """How the head is trained in one run, as it is asked for."""

    objective: str | Objective = "sigmoid"
    """A name, which takes `beta`, or an objective, which brings its own."""
    beta: float = 0.1
    """Strength of an objective given by name."""
    learning_rate: float | Literal["auto"] = "auto"
    """Step size, or "auto": `stable_learning_rate`, as a number that is then held."""
    optimizer: str | Optimizer = "sgd"
    schedule: Schedule | None = None
    """Factors on the learning rate; constant if not given."""
    batch_size: int | Literal["full"] = "full"
    """Pairs per step."""
    scheme: str = "epochs"
    """How minibatches are drawn; see `prefdyn.dynamics.sampling.batches`."""
    steps: int = 100
    seed: int = 0
    """Of the minibatches."""


@opened(run=HeadRun)
def sensitivity(
    feats: FeatureSet,
    *,
    run: HeadRun,
    of: Any = "groups",
    quantity: str = "loss",
    split: Literal["held_out", "train"] | str = "held_out",
    route: str = "auto",
    dtype: Literal["float32", "float64"] | None = None,
    arrays: Arrays | None = None,
    progress: bool = False,
) -> Sensitivity:
    r"""Exact derivatives of held-out targets in every pair's weight, group weights, $\beta$, rate and smoothing.

    The run is that of `sweep` with the same settings, to the last step. Adam's and RMSprop's denominators are
    differentiated. With minibatches the batches stay as drawn, so that a dropped pair falls silent in its batch. At the
    kink of `hinge` the pull is taken not to change.

    Args:
        feats: Features of either kind.
        run: How the head is trained; objective, beta, learning_rate and its other fields can be given as keywords.
        of: "groups", "all", "worst" (the group that fares worst at the end), names of groups, "id:…" of a pair,
            or weights of all pairs; see `prefdyn.dynamics.targets.targets`.
        quantity: "loss", "margin", "soft_accuracy" or "chosen_log_prob".
        split: Whose pairs targets by name are about.
        route: How to compute: "auto", the cheapest, or one of `prefdyn.dynamics.routes.ROUTES`.
        dtype: float64, or float32 where float64 features would take over 2 GiB, unless given.
        arrays: Takes a NumPy array to the library and device that computes, such as `torch.as_tensor`.
        progress: Show bars on stderr where it is a terminal.

    Returns:
        Derivatives of every target. A positive number in `pair` says that more weight for the pair raises the target:
        of a loss, that the pair hurts it.

    Raises:
        ConfigError: A setting is out of range or unknown, or the run diverges.
        DataError: A target has no pair, or log-probabilities are asked for that the features do not carry.

    Reference:
        THEORY 12; reverse-mode differentiation through training as in Maclaurin, Duvenaud and Adams (2015),
        arXiv:1502.03492, and for pair weights Ilyas and Engstrom (2025), "MAGIC", arXiv:2504.16430.

    Example:
        >>> feats = FeatureSet.from_arrays(
        ...     [[1.0, 0], [1, 0.5], [-1, 0], [1, 0.2]], chosen=[1, 1, 1, 1], rejected=[0, 0, 0, 0],
        ...     held_out=[False, False, False, True])
        >>> found = sensitivity(feats, beta=0.5, learning_rate=1.0, steps=5)
        >>> np.sign(found.pair[0]).tolist()  # the third pair pulls the other way: more of it raises the loss
        [-1.0, -1.0, 1.0, nan]
    """
    found = sensitivity_of(
        feats, one_setting(feats, run=run), run.steps, of=of, quantity=quantity, split=split, route=route, dtype=dtype,
        arrays=arrays, progress=progress,
    )  # fmt: skip
    if run.learning_rate != "auto":
        return found
    return replace(found, settings={**found.settings, "learning_rate_rule": "half of the largest stable step"})


def sensitivity_of(
    feats: FeatureSet,
    setting: Setting,
    steps: int,
    *,
    of: Any = "groups",
    quantity: str = "loss",
    split: str = "held_out",
    route: str = "auto",
    dtype: Literal["float32", "float64"] | None = None,
    arrays: Arrays | None = None,
    progress: bool = False,
) -> Sensitivity:
    """The same for a run whose settings are together; see `sensitivity`."""
    steps = at_least(steps, 1, name="steps")
    one = setting.objective
    wanted = targets(feats, "groups" if isinstance(of, str) and of == "worst" else of, quantity=quantity, split=split)
    used = np.dtype(dtype) if dtype is not None else feats.working_dtype
    built, pairs, drawn = laid_out(feats, setting, steps, route=route, dtype=used, arrays=arrays)
    put = arrays or (lambda values: values)
    walk = Walk(
        built, pairs, one, setting.learning_rate, setting.optimizer, setting.schedule, steps=steps, batches=drawn,
        put=arrays, reference=reference_state(built, feats.head) if decays(setting) else None,
    )  # fmt: skip
    if walk.reference is not None and (quantity == "chosen_log_prob" or one.reads == "log_probs"):
        raise ConfigError(
            "weight decay moves every row of the head, so log-probabilities are not known; ask for 'loss'"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is found by what is not finite
        end = walk.forward(progress=progress)
        found = reached(walk.route, end, walk.pairs, one, wanted)
    if not np.isfinite(found.values).all():
        raise ConfigError(
            f"the run diverges with learning rate {setting.learning_rate:g}, so it has no derivatives; on this data "
            f"{allowed(feats, one)}. Lower the rate"
        )
    if isinstance(of, str) and of == "worst":
        worst = int(np.argmax(found.values) if quantity == "loss" else np.argmin(found.values))
        wanted = wanted.rows([worst])
        found = reached(walk.route, end, walk.pairs, one, wanted)
    cotangent = seen_back(walk.route, put, ratios=found.ratios, logits=found.logits, responses=found.responses)
    back = walk.back(cotangent, progress=progress)
    train = walk.pairs.train
    return Sensitivity(
        targets=wanted.names,
        quantity=quantity,
        value=found.values,
        pair=spread(back.pair, train, len(feats)),
        pair_fixed=spread(back.pair_fixed, train, len(feats)),
        group=_by_group(back.pair * feats.weight[train], feats.group[train], len(feats.groups)),
        learning_rate=back.learning_rate,
        beta=found.beta + back.beta,
        label_smoothing=found.smoothing + back.smoothing if isinstance(one, DPO | RobustDPO) else None,
        weight=feats.weight,
        groups=feats.groups,
        settings=setting.describe() | {"steps": steps, "compute_dtype": str(used), "route": built.name},
        states_held=walk.most_states,
    )


@opened(run=HeadRun)
def one_setting(feats: FeatureSet, *, run: HeadRun) -> Setting:
    """The settings of one run, checked; `learning_rate` a number."""
    one = named_objective(run.objective, beta=run.beta) if isinstance(run.objective, str) else run.objective
    rate = stable_learning_rate(feats, one) if run.learning_rate == "auto" else run.learning_rate
    (setting,) = grid(
        feats, one, run.beta, rate, run.optimizer, run.schedule, run.batch_size, run.scheme, None, run.seed
    )  # fmt: skip
    return setting


def laid_out(
    feats: FeatureSet,
    setting: Setting,
    steps: int,
    *,
    route: str = "auto",
    dtype: np.dtype,
    arrays: Arrays | None = None,
    runs: int = 1,
) -> tuple[Route, Pairs, list[Int[np.ndarray, " b"]] | None]:
    """Route, pairs and batches of runs with these settings."""
    seen = as_seen(feats, setting.objective)
    pairs = Pairs.of(seen)
    name = route_for(setting, pairs, seen.kernel_width, asked=route, runs=runs, steps=steps, dtype=dtype)
    built = build(seen, pairs, name, dtype=dtype, arrays=arrays, sft=setting.objective.reads == "log_probs")
    if setting.batch_size == "full":
        return built, pairs, None
    size = int(setting.batch_size)
    return built, pairs, batches(len(pairs.train), size, steps, seed=setting.seed, scheme=setting.scheme)


def _by_group(values: Float[np.ndarray, "T trained"], group: np.ndarray, count: int) -> np.ndarray:
    """Sums over the trained pairs of each group; NaN where there is none."""
    found = np.full((len(values), count), math.nan)
    for code in np.unique(group):
        found[:, code] = values[:, group == code].sum(axis=1)
    return found
