r"""Where gradient flow goes in four kinds of coordinates, from one start and on one loss: lines, speeds, limits.

Flow lines do not depend on beta, which only sets the speed along them (`times`).
"""

import math
from typing import Any, Literal

import numpy as np

from prefdyn._checks import one_of
from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.gradient_field.plane import references

Coordinates = Literal["ratios", "probabilities", "log-ratios", "logits"]
COORDINATES: tuple[Coordinates, ...] = ("ratios", "probabilities", "log-ratios", "logits")
"""What gradient flow may move: (x1, x2), (π_w, π_l), (log x1, log x2), or two logits with the rest held fixed."""


def conserved(coordinates: Coordinates, first: Any, second: Any) -> Any:
    r"""What gradient flow in these coordinates keeps: a sum of squares, or for logarithms and logits the plain sum.

    Args:
        coordinates: The two numbers that flow.
        first: The one of the chosen answer, in these coordinates; any shape.
        second: The one of the rejected answer.

    Returns:
        $u^2 + v^2$ for ratios and probabilities; $u + v$ for log-ratios (so $x_1 x_2$ is kept) and logits.

    Reference:
        2404.04626, Theorem 2 (text not found: this stands in its place); THEORY 4.4 and 4.5.

    Found:
        Ours. The loss is constant along rays, so $x_1 \partial_1 L + x_2 \partial_2 L = 0$ (Euler) and the flow runs
        on circles about the origin, for every beta. Integrated numerically, the sum keeps to 1e-8; the difference
        $x_1^2 - x_2^2$, an easy slip, goes from 0 to 1.95.

    Example:
        >>> float(conserved("ratios", 1.0, 1.0)), float(conserved("log-ratios", 0.5, -0.5))
        (2.0, 0.0)
    """
    one_of(coordinates, COORDINATES, name="coordinates")
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if coordinates in ("ratios", "probabilities"):
        with np.errstate(over="ignore"):
            return first * first + second * second
    return first + second


def speed_ratio(
    coordinates: Coordinates,
    x1: Any,
    x2: Any,
    *,
    unit: Literal["own", "ratios", "log-ratios"] = "ratios",
    ref_chosen: float | None = None,
    ref_rejected: float | None = None,
) -> Any:
    r"""How many times faster the rejected side falls than the chosen side rises, at a point of the plane.

    | flow in | own | ratios, $\lvert\dot x_2/\dot x_1\rvert$ | log-ratios |
    |---|---|---|---|
    | ratios | $x_1/x_2$ | $x_1/x_2$ | $(x_1/x_2)^2$ |
    | probabilities | $\pi_w/\pi_l$ | $(\pi_w/\pi_l)^2\, x_2/x_1$ | $(\pi_w/\pi_l)^2$ |
    | log-ratios | 1 | $x_2/x_1$ | 1 |
    | logits | 1 | $\frac{1+\pi_w-\pi_l}{1-\pi_w+\pi_l}\, x_2/x_1$ | $\frac{1+\pi_w-\pi_l}{1-\pi_w+\pi_l}$ |

    Args:
        coordinates: The numbers that gradient flow moves.
        x1: Chosen probability over its reference, above 0; any shape.
        x2: Rejected probability over its reference, above 0.
        unit: What is compared: the flowing numbers themselves, the two ratios, or their logarithms.
        ref_chosen: Reference probability of the chosen answer; needed for probabilities and logits.
        ref_rejected: Reference probability of the rejected answer.

    Returns:
        Above 1 where the rejected side is the faster one. Infinity beyond the largest float64.

    Raises:
        ConfigError: Unknown coordinates or unit, or the reference is needed and missing.
        DataError: A ratio is not above 0, or together they take more than all probability.

    Reference:
        2404.04626, Abstract ("at a faster rate"); THEORY 4.5.

    Found:
        Wrong. As a statement about DPO: it is one about the plane's metric. At x1/x2 = 9 the flow in the ratios moves
        the rejected ratio 9 times faster, the flow in log-ratios 9 times slower, from the same loss; in logits, which
        is what models train, it depends on the reference (0.18 times at (0.1, 0.1)). Use this function with the
        coordinates that are trained.

    Example:
        >>> float(speed_ratio("ratios", 4.0, 1.0)), float(speed_ratio("log-ratios", 4.0, 1.0))
        (4.0, 0.25)
    """
    one_of(coordinates, COORDINATES, name="coordinates")
    one_of(unit, ("own", "ratios", "log-ratios"), name="unit")
    first, second = ratios(x1, x2)
    with np.errstate(over="ignore", divide="ignore"):
        ahead = first / second
        if coordinates == "ratios":
            return ahead * ahead if unit == "log-ratios" else ahead
        if coordinates == "log-ratios":
            return 1 / ahead if unit == "ratios" else np.ones_like(ahead)[()]
        chosen, rejected = _probabilities(first, second, ref_chosen, ref_rejected)
        if coordinates == "probabilities":
            inside = chosen / rejected
            return inside if unit == "own" else inside * inside / (ahead if unit == "ratios" else 1.0)
        if unit == "own":
            return np.ones_like(ahead)[()]
        lead = chosen - rejected
        return (1 + lead) / (1 - lead) / (ahead if unit == "ratios" else 1.0)


def flow_point(
    coordinates: Coordinates,
    *,
    ratio: Any,
    start: tuple[float, float] = (1.0, 1.0),
    ref_chosen: float | None = None,
    ref_rejected: float | None = None,
) -> tuple[Any, Any]:
    r"""The point (x1, x2) at which the flow line through `start` has $x_1/x_2$ equal to `ratio`. Beta plays no part.

    Args:
        coordinates: The numbers that gradient flow moves.
        ratio: $x_1/x_2$ there, above 0, any shape; below the start's it lies in the past.
        start: A point (x1, x2) of the flow line, both above 0.
        ref_chosen: Reference probability of the chosen answer; needed for logits, and for probabilities.
        ref_rejected: Reference probability of the rejected answer.

    Returns:
        x1 and x2, each of the shape of `ratio`. Flows in ratios or probabilities know of no simplex and may leave it:
        see `feasible`.

    Raises:
        ConfigError: Unknown coordinates, or the reference is needed and missing.
        DataError: A ratio is not above 0, or the start takes more than all probability.

    Reference:
        2404.04626, Abstract ("hindrance to the learning capacity towards human-preferred responses"); THEORY 4.5.

    Found:
        Wrong. As a property of DPO: from the same start and at the same loss (x1/x2 = 9) the chosen ratio has grown to
        1.41 in the paper's plane, 3 in log-ratios and 2.65 or 3.21 in logits. Only the plane stops it at √2.

    Example:
        >>> [round(float(x), 4) for x in flow_point("ratios", ratio=9.0)]
        [1.4056, 0.1562]
        >>> [round(float(x), 4) for x in flow_point("logits", ratio=9.0, ref_chosen=0.1, ref_rejected=0.4)]
        [3.2143, 0.3571]
    """
    one_of(coordinates, COORDINATES, name="coordinates")
    ratio, _ = ratios(ratio, 1.0)
    a, b = (float(x) for x in ratios(*start))
    if coordinates == "ratios":
        return _on_circle(math.hypot(a, b), ratio)
    if coordinates == "log-ratios":
        middle, half = (math.log(a) + math.log(b)) / 2, np.log(ratio) / 2
        return np.exp(middle + half), np.exp(middle - half)
    chosen, rejected = _probabilities(a, b, ref_chosen, ref_rejected)
    if coordinates == "probabilities":
        assert ref_chosen is not None
        assert ref_rejected is not None
        pi_w, pi_l = _on_circle(math.hypot(chosen, rejected), ratio * (ref_chosen / ref_rejected))
        return pi_w / ref_chosen, pi_l / ref_rejected
    shift = (np.log(ratio) - math.log(a) + math.log(b)) / 2
    rest = 1 - chosen - rejected
    kept = np.full_like(shift, -math.inf if rest <= 1e-15 else math.log(rest))
    total = np.logaddexp(kept, np.logaddexp(math.log(chosen) + shift, math.log(rejected) - shift))
    return np.exp(math.log(a) + shift - total)[()], np.exp(math.log(b) - shift - total)[()]


def largest_preferred_ratio(start: tuple[float, float] = (1.0, 1.0)) -> float:
    r"""$\sqrt{x_1^2 + x_2^2}$: what x1 can grow to along the plane's own flow, reached as x2 → 0.

    Args:
        start: The point (x1, x2) from which the flow starts, both above 0.

    Returns:
        The largest chosen ratio, without unit.

    Reference:
        2404.04626, Remarks (sensitivity to the SFT model); THEORY 4.4.

    Found:
        Ours. In the plane the start alone fixes what can be reached, √2 times the reference from (1, 1), and reaching
        it takes all of x2. It binds no model: in logits x1 reaches 3.2 with x2 still at 0.36 (`flow_point`).

    Example:
        >>> round(largest_preferred_ratio(), 6)
        1.414214
    """
    a, b = ratios(*start)
    return math.hypot(float(a), float(b))


# the simplex on the way ---------------------------------------------------------------------------------------------


def largest_mass(*, ref_chosen: float, ref_rejected: float, start: tuple[float, float] = (1.0, 1.0)) -> float:
    r"""Largest $\pi_w + \pi_l$ on the plane's flow line from the start to x2 = 0.

    On the whole circle it is $R\sqrt{\pi_{ref}(w)^2 + \pi_{ref}(l)^2}$, at $x_2/x_1 = \pi_{ref}(l)/\pi_{ref}(w)$. The
    flow passes there iff the start's x2/x1 is above that; otherwise mass only falls.

    Args:
        ref_chosen: Reference probability of the chosen answer, in (0, 1).
        ref_rejected: Reference probability of the rejected answer, in (0, 1).
        start: The point (x1, x2) from which the flow starts, both above 0.

    Returns:
        The mass; above 1 the plane's flow asks for more probability than there is.

    Raises:
        ConfigError: A reference probability is out of range, or both together are above 1.

    Reference:
        2404.04626, the plane of Figure 1; THEORY 4.4.

    Found:
        Ours. The plane does not know that probabilities sum to 1: from (1, 1) with reference (0.7, 0.3) its flow
        reaches a mass of 1.077.

    Example:
        >>> round(largest_mass(ref_chosen=0.7, ref_rejected=0.3), 3)
        1.077
    """
    references(ref_chosen, ref_rejected)
    a, b = (float(x) for x in ratios(*start))
    if b * ref_chosen > a * ref_rejected:
        return math.hypot(a, b) * math.hypot(ref_chosen, ref_rejected)
    return a * ref_chosen + b * ref_rejected


def leaves_simplex(*, ref_chosen: float, ref_rejected: float, start: tuple[float, float] = (1.0, 1.0)) -> bool:
    r"""Whether the plane's flow line runs out of what probabilities allow before x2 = 0.

    From (1, 1): iff $\pi_{ref}(w) > \pi_{ref}(l)$ and $\pi_{ref}(w)^2 + \pi_{ref}(l)^2 > 1/2$.

    Args:
        ref_chosen: Reference probability of the chosen answer, in (0, 1).
        ref_rejected: Reference probability of the rejected answer, in (0, 1).
        start: The point (x1, x2) from which the flow starts, both above 0.

    Returns:
        True where the largest mass on the way is above 1.

    Reference:
        2404.04626, the plane of Figure 1; THEORY 4.4.

    Found:
        Ours. Exactly the references that already give the chosen answer most of the mass: there the plane's picture of
        training is impossible.

    Example:
        >>> leaves_simplex(ref_chosen=0.7, ref_rejected=0.3), leaves_simplex(ref_chosen=0.5, ref_rejected=0.5)
        (True, False)
    """
    return largest_mass(ref_chosen=ref_chosen, ref_rejected=ref_rejected, start=start) > 1 + 1e-12


def leaving_point(
    *, ref_chosen: float, ref_rejected: float, start: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float]:
    """The first point (x1, x2) at which the plane's flow line meets mass 1 on its way out; NaN where it never does.

    Args:
        ref_chosen: Reference probability of the chosen answer, in (0, 1).
        ref_rejected: Reference probability of the rejected answer, in (0, 1).
        start: The point (x1, x2) from which the flow starts, both above 0.

    Returns:
        The point; the start itself where the two answers hold all probability already.

    Reference:
        THEORY 4.4; the limit that 2404.04626 leaves out.

    Example:
        >>> [round(x, 4) for x in leaving_point(ref_chosen=0.7, ref_rejected=0.25)]
        [1.1203, 0.863]
    """
    if not leaves_simplex(ref_chosen=ref_chosen, ref_rejected=ref_rejected, start=start):
        return math.nan, math.nan
    radius = math.hypot(*start)
    cosine = 1 / (radius * math.hypot(ref_chosen, ref_rejected))
    angle = math.atan2(ref_rejected, ref_chosen) + math.acos(min(1.0, cosine))
    angle = min(angle, math.atan2(start[1], start[0]))
    return radius * math.cos(angle), radius * math.sin(angle)


# helpers ------------------------------------------------------------------------------------------------------------


def ratios(x1: Any, x2: Any) -> tuple[Any, Any]:
    """Both as float64, after a check that both are finite and above 0."""
    found = []
    for values in (x1, x2):
        array = np.asarray(values, dtype=np.float64)
        bad = ~(np.isfinite(array) & (array > 0))
        if bad.any():
            raise DataError(
                f"a ratio of probabilities is {float(array[bad][0])!r}, but must be a finite number above 0; leave such"
                f" points out, or work in logarithms"
            )
        found.append(array[()])
    return found[0], found[1]


def _probabilities(first: Any, second: Any, ref_chosen: float | None, ref_rejected: float | None) -> tuple[Any, Any]:
    """(π_w, π_l) at a point of the plane, after a check that they are probabilities."""
    if ref_chosen is None or ref_rejected is None:
        raise ConfigError("these coordinates need the reference probabilities; give ref_chosen and ref_rejected")
    references(ref_chosen, ref_rejected)
    chosen, rejected = first * ref_chosen, second * ref_rejected
    if np.any(chosen + rejected > 1 + 1e-12):
        raise DataError(
            f"the two answers would have probability {float(np.max(chosen + rejected)):.6g} together; give a point"
            f" within the simplex (see feasible)"
        )
    return chosen, rejected


def _on_circle(radius: float, ratio: Any) -> tuple[Any, Any]:
    """The point of the circle with first/second equal to ratio."""
    with np.errstate(over="ignore", divide="ignore"):
        return radius / np.hypot(1.0, 1 / ratio), radius / np.hypot(1.0, ratio)
