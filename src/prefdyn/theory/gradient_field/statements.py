r"""What the field theory says of a run: each statement with the conditions under which its plane is the run's world.

The plane is exact for one pair whose two probability ratios are trained themselves. Nothing trains them: a run moves a
head, an adapter or a body. So most statements stand outside their conditions in a real run, and say which.
"""

import math

import numpy as np

from prefdyn._checks import at_least
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.gradient_field.displacement import LogProbRates
from prefdyn.theory.gradient_field.flow import Coordinates, conserved, largest_mass, largest_preferred_ratio
from prefdyn.theory.gradient_field.plane import gradient_ratio, references

_PLANE: Coordinates = "ratios"


def ratio_statement(x1: float, x2: float, *, measured: float = math.nan, group: str | None = None) -> Bound:
    r"""Corollary 1: the pull on the chosen ratio over that on the rejected one is $x_2/x_1$.

    Args:
        x1: Chosen probability over its reference, above 0.
        x2: Rejected probability over its reference, above 0.
        measured: The same quotient from derivatives of a run's own loss; NaN if none.
        group: The group it speaks of.

    Returns:
        An equality without conditions: it is calculus, at every point and for every beta.

    Reference:
        2404.04626, Theorem 1 and Corollary 1; THEORY 4.2 and 4.3.

    Found:
        Confirmed. Exact. What does not follow from it is a claim about training: see `speed_statement`.

    Example:
        >>> print(ratio_statement(2.0, 0.5))
        2404.04626, Theorem 1 and Corollary 1: pull on x1 over pull on x2 at (2, 0.5) equal to 0.25
    """
    return Bound(
        statement="2404.04626, Theorem 1 and Corollary 1",
        quantity=f"pull on x1 over pull on x2 at ({x1:.3g}, {x2:.3g})",
        direction="equal to",
        value=float(gradient_ratio(x1, x2)),
        trivial=math.nan,
        measured=float(measured),
        group=group,
        note="holds for the two ratios as coordinates; in logits both pulls are equal",
    )


def circle_statement(
    start: tuple[float, float] = (1.0, 1.0),
    *,
    trains: str = "head",
    descent_drift: float = 0.0,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""The plane's own flow keeps $x_1^2 + x_2^2$.

    Args:
        start: (x1, x2) before training, (1, 1) where the policy starts at the reference.
        trains: What the run moves: one of `COORDINATES`, or a word such as `head`.
        descent_drift: Sum of `gradient_descent_drift` over the steps, over the start's squared radius; 0 for flow.
        measured: $x_1^2 + x_2^2$ at the end of the run; NaN if none.
        group: The group it speaks of.

    Returns:
        An equality; its conditions fail for every run that does not train the ratios themselves.

    Reference:
        2404.04626, Theorem 2 (text not found: this stands in its place); THEORY 4.4.

    Found:
        Ours. True in the plane (2 kept to 1e-8 by the integrated flow), and no property of models: in logits, from
        reference (0.1, 0.4), it grows from 2 to 10.5 by x1/x2 = 9.

    Example:
        >>> circle_statement(trains="ratios", measured=2.0).standing, circle_statement(measured=3.1).standing
        ('informative', 'outside')
    """
    return Bound(
        statement="2404.04626, flow lines of the plane",
        quantity="x1^2 + x2^2 at the end",
        direction="equal to",
        value=float(conserved(_PLANE, *start)),
        trivial=math.nan,
        conditions=(
            _plane(trains),
            Condition(says="steps are small: sum of eta^2 |gradient|^2 over R^2", measured=descent_drift, limit=1e-3),
        ),
        form="repaired",
        measured=float(measured),
        group=group,
        note="stands in for Theorem 2, whose text was not found",
    )


def speed_statement(
    start: tuple[float, float] = (1.0, 1.0),
    *,
    trains: str = "head",
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""The abstract's claim: the rejected ratio falls faster than the chosen one rises, by x1/x2 or more on the way.

    Along the plane's flow $\lvert dx_2/dx_1\rvert = x_1/x_2$ only grows, so the change of x2 over a whole run is at
    least $x_1/x_2$ at its start times the change of x1: at least 1 where it starts at the reference.

    Args:
        start: (x1, x2) before training.
        trains: What the run moves: one of `COORDINATES`, or a word such as `head`.
        measured: Fall of x2 over rise of x1 in the run; NaN if none.
        group: The group it speaks of.

    Returns:
        A lower bound with the two conditions that it needs: the plane, and a start that does not prefer the rejected.

    Reference:
        2404.04626, Abstract ("at a faster rate"); THEORY 4.5.

    Found:
        Wrong. As a property of the DPO loss: true of flow in the ratios from x1 ≥ x2 on, but the same loss in
        log-ratios from (1, 1) to x1/x2 = 9 raises x1 by 2 and lowers x2 by 0.667, a quotient of 0.33. In logits it
        depends on the reference.

    Example:
        >>> speed_statement(trains="ratios", measured=2.08).standing, speed_statement(measured=0.33).applies
        ('informative', False)
    """
    ahead = 1 / float(gradient_ratio(*start))
    return Bound(
        statement="2404.04626, Abstract (rejected falls faster)",
        quantity="fall of the rejected ratio over rise of the chosen ratio",
        direction="at least",
        value=ahead,
        trivial=0.0,
        conditions=(
            _plane(trains),
            Condition(says="x1 >= x2 at the start", measured=ahead, relation=">=", limit=1.0),
        ),
        measured=float(measured),
        group=group,
        note="a statement about the coordinates: in log-ratios the same loss gives x2/x1, in logits it depends on the"
        " reference",
    )


def own_speed_statement(
    pi_w: float, pi_l: float, *, pairs: int = 1, measured: float = math.nan, group: str | None = None
) -> Bound:
    r"""The speed claim for a softmax: log π of the rejected falls $\frac{1+\pi_w-\pi_l}{1-\pi_w+\pi_l}$ times as fast.

    Args:
        pi_w: Probability of the chosen token under the policy, in [0, 1).
        pi_l: Probability of the rejected token, above 0.
        pairs: How many pairs are trained together on what this pair uses.
        measured: The same quotient of changes of log-probability over one small step; NaN if none.
        group: The group it speaks of.

    Returns:
        An equality: above 1 exactly where the model prefers the chosen answer already.

    Reference:
        2404.04626, Abstract ("at a faster rate"); THEORY 4.5 and 4.6 (a).

    Found:
        Repaired. The claim with its condition: rejected falls faster, in log-probability, iff the policy prefers the
        chosen answer already.

    Example:
        >>> own_speed_statement(0.25, 0.5).value
        0.6
    """
    lead = pi_w - pi_l
    return Bound(
        statement="2404.04626, Abstract (rejected falls faster)",
        quantity="fall of log π(rejected) over rise of log π(chosen), one small step",
        direction="equal to",
        value=(1 + lead) / (1 - lead) if lead < 1 else math.inf,
        trivial=math.nan,
        conditions=(_alone(pairs),),
        form="repaired",
        measured=float(measured),
        group=group,
        note="for a softmax over tokens with a trained head or free logits",
    )


def displacement_statement(*, pairs: int, measured: float = math.nan, group: str | None = None) -> Bound:
    r"""In the plane x1 always grows: no pair's chosen probability falls.

    Args:
        pairs: How many pairs share what is trained; for a trained head, all of them.
        measured: Share of pairs whose chosen probability is lower at the end than at the start; NaN if none.
        group: The group it speaks of.

    Returns:
        An upper bound of 0, on the condition that a pair is alone.

    Raises:
        ConfigError: pairs is below 1.

    Reference:
        2404.04626, Theorem 1 (dL/dx1 < 0); THEORY 4.6.

    Found:
        Wrong. As a reading of Theorem 1 for a model: the derivative is negative, and with a trained head one pair alone
        never loses its chosen answer, but two pairs that share a rejected token do. `log_prob_rates` says which.

    Example:
        >>> displacement_statement(pairs=1, measured=0.0).standing, displacement_statement(pairs=64).standing
        ('informative', 'outside')
    """
    return Bound(
        statement="2404.04626, Theorem 1 (chosen only rises)",
        quantity="share of pairs whose chosen probability ends lower",
        direction="at most",
        value=0.0,
        trivial=1.0,
        conditions=(_alone(at_least(pairs, 1, name="pairs")),),
        measured=float(measured),
        group=group,
        note="pairs that share a head move each other; see the repaired form",
    )


def displacement_forecast(rates: LogProbRates, *, measured: float = math.nan, group: str | None = None) -> Bound:
    r"""The share of pairs whose chosen answer is losing probability now, all pairs and their similarities counted.

    Args:
        rates: From `log_prob_rates`, at the moment in question.
        measured: The same share over one small step of the run; NaN if none.
        group: The group it speaks of.

    Returns:
        An equality, for a trained head.

    Reference:
        2404.04626, Theorem 1 (chosen only rises); THEORY 4.6 (b).

    Found:
        Repaired. Gives the share that a trained head shows in its first step exactly (24 random sets of pairs).

    Example:
        >>> displacement_forecast(LogProbRates(chosen=np.array([-0.1, 0.2]), rejected=np.array([-0.3, 0.0]))).value
        0.5
    """
    return Bound(
        statement="2404.04626, Theorem 1 (chosen only rises)",
        quantity="share of pairs whose chosen probability starts to fall",
        direction="equal to",
        value=float(np.mean(rates.chosen < 0)),
        trivial=math.nan,
        form="repaired",
        measured=float(measured),
        group=group,
        note="of the rate at one moment, for a trained head",
    )


def feasibility_statement(
    *,
    ref_chosen: float,
    ref_rejected: float,
    start: tuple[float, float] = (1.0, 1.0),
    trains: str = "head",
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""The chosen ratio of the plane's flow stays below $\sqrt{x_1^2 + x_2^2}$ of the start: √2 from the reference.

    Args:
        ref_chosen: Reference probability of the chosen answer, in (0, 1).
        ref_rejected: Reference probability of the rejected answer, in (0, 1).
        start: (x1, x2) before training.
        trains: What the run moves: one of `COORDINATES`, or a word such as `head`.
        measured: The largest x1 of the run; NaN if none.
        group: The group it speaks of.

    Returns:
        An upper bound, trivial where $1/\pi_{ref}(w)$, which holds of anything, is smaller. Its second condition says
        whether probabilities can follow the flow line at all.

    Raises:
        ConfigError: A reference probability is out of range, or both together are above 1.

    Reference:
        2404.04626, the plane of Figure 1; THEORY 4.4.

    Found:
        Ours. Says something only where the reference gives the chosen answer less than 0.707, and then only for the
        plane: in logits from (0.1, 0.4), x1 passes √2 and reaches 3.2.

    Example:
        >>> found = feasibility_statement(ref_chosen=0.7, ref_rejected=0.3, trains="ratios")
        >>> [condition.holds for condition in found.conditions]
        [True, False]
    """
    references(ref_chosen, ref_rejected)
    return Bound(
        statement="2404.04626, reach of the plane's flow",
        quantity="largest x1 = π(chosen)/reference",
        direction="at most",
        value=largest_preferred_ratio(start),
        trivial=1 / ref_chosen,
        conditions=(
            _plane(trains),
            Condition(
                says="π(chosen) + π(rejected) <= 1 along the flow line",
                measured=largest_mass(ref_chosen=ref_chosen, ref_rejected=ref_rejected, start=start),
                limit=1.0,
            ),
        ),
        form="repaired",
        measured=float(measured),
        group=group,
        note="stands in for the remarks on the initial state, whose text was not found",
    )


def _plane(trains: str) -> Condition:
    return Condition(says="gradient flow moves x1 and x2 themselves", measured=trains, relation="=", limit=_PLANE)


def _alone(pairs: int) -> Condition:
    return Condition(says="pairs that share what is trained", measured=pairs, relation="<=", limit=1)
