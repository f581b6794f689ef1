r"""Group-robust training online: each step weighs the groups by their losses so far, the worst the most.

$q_g \leftarrow q_g \exp(\eta_q L_g)$ and normalised, and the step goes down $\sum_g q_g L_g$, with $L_g$ the mean loss
of the group's pairs in the step.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn._checks import positive
from prefdyn.dynamics.adjoint import laid_out
from prefdyn.dynamics.engine import moved, reference_state
from prefdyn.dynamics.grid import Setting, decays
from prefdyn.errors import ConfigError
from prefdyn.features import FeatureSet
from prefdyn.maths.optimizers import factor_of


def group_robust(
    feats: FeatureSet, setting: Setting, steps: int, *, pace: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " groups"]]:
    r"""One group-robust run.

    The groups' weights of a step follow from the losses that the steps before it saw.

    Args:
        feats: Features of either kind.
        setting: Of the run; an objective of the margin.
        steps: Of the run.
        pace: $\eta_q$, per nat and step.

    Returns:
        Margins of all pairs at the end, and the weights $q$ of the groups, which sum to 1: their mean over the steps.

    Raises:
        ConfigError: The objective reads log-probabilities, or the pace is not above 0.

    Reference:
        Ramesh et al. (2024), "Group Robust Preference Optimization", arXiv:2405.20304, Algorithm 1.

    Example:
        >>> from prefdyn.dynamics.adjoint import one_setting
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups([40, 10], groups=2, width=8, half_gap=[2.0, 0.5])
        >>> margins, weights = group_robust(feats, one_setting(feats, learning_rate=1.0), 50, pace=0.3)
        >>> bool(weights[1] > 0.5)  # the group that learns late
        True
    """
    positive(pace, name="pace", fix="give a number above 0")
    objective = setting.objective
    if objective.reads != "margins":
        raise ConfigError(f"{objective.name!r} reads log-probabilities; group-robust runs need a loss of the margin")
    route, pairs, batches = laid_out(feats, setting, steps, dtype=feats.working_dtype)
    train = pairs.train
    group, weight = pairs.group[train], pairs.weight[train]
    mass = np.bincount(group, weights=weight, minlength=len(pairs.groups))
    belief = (mass > 0) / (mass > 0).sum()
    average = np.zeros(len(mass))
    reference = reference_state(route, feats.head) if decays(setting) else None
    state = route.start(1)
    memory = setting.optimizer.start(state)
    losses = np.full(len(train), np.nan)
    for step in range(steps):
        batch = None if batches is None else batches[step]
        seen = np.arange(len(train)) if batch is None else batch
        inside = np.bincount(group[seen], weights=weight[seen], minlength=len(mass))
        share = np.zeros(len(train))
        share[seen] = (belief * (inside > 0))[group[seen]] * weight[seen] / inside[group[seen]]
        share /= share.sum()

        def pull(signal: Any, where: Any, share: np.ndarray = share) -> Any:
            margins = objective.beta * signal
            losses[where] = np.asarray(objective.loss(margins))[:, 0]
            return objective.push(margins) * (objective.beta * share[where, None])

        gradient = route.gradient(state, pull, batch)
        means = np.bincount(group[seen], weights=weight[seen] * losses[seen], minlength=len(mass))
        grown = belief * np.exp(pace * np.where(inside > 0, means / np.maximum(inside, 1e-300), 0.0))
        average += belief / steps
        belief = grown / grown.sum()
        rate = setting.learning_rate * factor_of(setting.schedule, step)
        state, memory = moved(setting.optimizer, state, gradient, memory, rate=rate, step=step, reference=reference)
    margins = np.full(len(pairs), np.nan)
    for part in route.seen(state, logits=False):
        margins[part.places] = objective.beta * part.ratios[:, 0]
    return margins, average
