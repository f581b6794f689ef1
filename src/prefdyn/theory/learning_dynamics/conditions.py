"""What the theorems on last-layer training ask, as conditions with measured numbers, and the tails they share."""

import math

from prefdyn.theory.bound import Condition
from prefdyn.theory.learning_dynamics.constants import Constants
from prefdyn.theory.learning_dynamics.last_layer import largest_stable_step

IID = Condition(says="features are i.i.d. in each class with alpha-subexponential tails")
GAUSSIAN = Condition(says="features are i.i.d. and Gaussian in each class")


def equal_classes(c: Constants) -> Condition:
    """Both answers are chosen equally often."""
    return Condition(says="n_+ = n_-", measured=c.n_plus, relation="=", limit=c.n_minus)


def two_rows(c: Constants) -> Condition:
    """Each class has a covariance."""
    return Condition(says="each class has two rows", measured=min(c.n_plus, c.n_minus), relation=">=", limit=2)


def published_step(c: Constants, *, beta: float, learning_rate: float) -> Condition:
    """The step condition of Theorems 4.1 to 4.3; beta' c_n is beta times the radius."""
    measured = learning_rate * (beta * c.radius) ** 2
    return Condition(says="eta beta'^2 c_n^2 <= 1/4", measured=measured, limit=0.25)


def stable_step(c: Constants, *, beta: float, learning_rate: float) -> Condition:
    """The step at which increments never grow; taken for granted where the sample is unknown."""
    limit = math.nan if math.isnan(c.smoothness) else largest_stable_step(c.smoothness, beta=beta)
    return Condition(says="eta <= 4/(beta^2 lambda_max(G^T G/n))", measured=learning_rate, limit=limit)


def gaussian_norm_tail(c: Constants) -> float:
    r"""Log of $n \exp(-R^2 / 2 \lVert\Sigma\rVert_{op})$: chance that a Gaussian state is longer than 2R, R the radius.

    Reference:
        THEORY 2.2 and 2.4; Gaussian Lipschitz concentration for the event of 2403.18742, Eqs. 15 and 16.

    Example:
        >>> c = Constants(n_plus=20, n_minus=20, width=1, gap=1.0, weighted_gap=1.0, trace_plus=1.0, trace_minus=1.0,
        ...               op_norm=1.0, radius=4.0)
        >>> round(gaussian_norm_tail(c), 6)  # log 40 - 8
        -4.311121
    """
    return math.log(c.n) - quotient(power(c.radius, 2), 2 * c.op_norm)


def quotient(top: float, bottom: float) -> float:
    """`top / bottom`, infinite where only the bottom is 0, and 0 where the top is."""
    if top == 0:
        return 0.0 if not math.isnan(bottom) else math.nan
    return top / bottom if bottom != 0 else math.inf


def power(base: float, exponent: float) -> float:
    """`base ** exponent` of a length, infinite where it overflows."""
    if base == 0 or math.isnan(base):
        return base
    return exp(exponent * math.log(base))


def exp(exponent: float) -> float:
    """The exponential, infinite where it overflows."""
    return math.exp(exponent) if not exponent > 709 else math.inf
