r"""The last layer in closed form: the direction of descent, its linear approximation, and the steps that are stable.

Two answers, frozen states $g_i$, signs $s_i = +1$ where the first answer is chosen. Only the two answers' rows of the
unembedding move, oppositely, by $\pm w$; the reward margin is $r_i = 2 \beta s_i\, w \cdot g_i$, and the change of the
whole matrix has operator norm = Frobenius norm = $\sqrt2 \lVert w \rVert$.
"""

import math

import numpy as np
from jaxtyping import Float, Num
from scipy.special import expit

from prefdyn._checks import at_least, positive
from prefdyn.errors import ConfigError


def descent_direction(
    states: Float[np.ndarray, "n d"], signs: Num[np.ndarray, " n"], weights: Float[np.ndarray, " d"], *, beta: float
) -> Float[np.ndarray, " d"]:
    r"""The direction in which descent moves the first answer's row: $\frac{\beta}{n} \sum_i \sigma(-r_i)\, s_i g_i$.

    One full-batch step is $w \leftarrow w + \eta\, \cdot$ this; the second answer's row moves by minus that.

    Args:
        states: Final hidden state of each prompt.
        signs: +1 where the first answer is chosen, -1 where the second is.
        weights: w, the change so far of the first answer's row.
        beta: DPO's temperature.

    Returns:
        Minus the gradient of the loss with respect to that row.

    Raises:
        ConfigError: beta is not above 0.

    Reference:
        2403.18742, Eq. 11; THEORY 1.2.

    Found:
        Wrong. Eqs. 9, 10, 11, 20 and 21 are printed as the gradient, but are minus the gradient, the direction of
        descent. Read so they are exact: central differences of the loss over the whole matrix agree with minus this
        function to 1e-9, and with the printed sign they do not. The class means in Eq. 11 also need classes of equal
        size; this sum does not.

    Example:
        >>> states, signs = np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]]), np.array([1, 1, -1, -1])
        >>> descent_direction(states, signs, np.zeros(2), beta=0.5).tolist()  # beta/4 times the gap (2, 1)
        [0.25, 0.125]
    """
    positive(beta, name="beta")
    push = expit(-2 * beta * signs * (states @ weights)) * signs
    return beta / len(states) * (push @ states)


def largest_stable_step(smoothness: float, *, beta: float) -> float:
    r"""The largest step at which descent never takes a longer step than before: $4 / (\beta^2 \lambda_{\max}(S))$.

    $S = G^\top G / n$. In w the loss has curvature at most $\beta^2 \lambda_{\max}(S)$ and the effective step is
    $\eta / 2$; a convex loss whose step is at most 2 over the curvature has increments of non-increasing norm.

    Args:
        smoothness: $\lambda_{\max}(S)$, as in `Constants.smoothness`.
        beta: DPO's temperature.

    Returns:
        The largest learning rate; infinite where every state is 0.

    Raises:
        ConfigError: beta is not above 0.

    Reference:
        THEORY 2.3 and 9; replaces the step condition of 2403.18742, Theorem 4.1.

    Found:
        Sharper. At most a quarter of it is allowed by the published condition whenever no state is longer than
        $2 c_n \sqrt d$ (`published_step_limit`); 1,000 random problems keep to it at the limit itself.

    Example:
        >>> round(largest_stable_step(1.70710678, beta=0.5), 6)
        9.372583
    """
    positive(beta, name="beta")
    return 4 / (beta**2 * smoothness) if smoothness > 0 else math.inf


def published_step_limit(radius: float, *, beta: float) -> float:
    r"""The largest step that Theorems 4.1 to 4.3 allow: $\eta\, \beta'^2 c_n^2 \le 1/4$, so $1 / (2 \beta R)^2$.

    Args:
        radius: $R = c_n \sqrt d$, as in `Constants.radius`.
        beta: DPO's temperature; $\beta' c_n = \beta R$.

    Returns:
        The largest learning rate; infinite for a radius of 0.

    Raises:
        ConfigError: beta is not above 0.

    Reference:
        2403.18742, Theorem 4.1 (condition); THEORY 2.2.

    Found:
        Loose. It is sufficient, but at least 4 times smaller than the step that is stable (`largest_stable_step`)
        wherever no state is longer than twice the radius. Appendix A.2 writes `eta h^2` once for `eta c_n^2`.

    Example:
        >>> published_step_limit(64.0, beta=0.01)  # d = 4096, c_n = 1, beta' = 0.64
        0.6103515625
    """
    positive(beta, name="beta")
    return 1 / (2 * beta * radius) ** 2 if radius > 0 else math.inf


def linearised_weights(
    states: Float[np.ndarray, "n d"],
    signs: Num[np.ndarray, " n"],
    *,
    beta: float,
    learning_rate: float,
    steps: int,
) -> Float[np.ndarray, " d"]:
    r"""The change of the head after t steps while all margins are small.

    $w(t) \approx \frac{1}{2\beta} S^+ \big[ I - (I - \tfrac{\eta\beta^2}{2} S)^t \big] b_w$, from
    $\sigma(-r) \approx \tfrac12 - \tfrac r4$; exact in the limit of small margins.

    Args:
        states: Final hidden state of each prompt.
        signs: +1 where the first answer is chosen, -1 where the second is.
        beta: DPO's temperature.
        learning_rate: Step size, at most `largest_stable_step`: beyond it the recursion runs away.
        steps: Full-batch steps t, 0 or more.

    Returns:
        The change of the first answer's row.

    Raises:
        ConfigError: A setting is out of range, or the step is not stable.

    Reference:
        THEORY 1.5; makes exact the Taylor step in 2403.18742, appendix A.2.

    Found:
        Ours. The appendix stops the Taylor series at the same place, but then bounds term by term. Relative error
        1e-5 on the printed problem after 50 steps with margins of 0.12.

    Example:
        >>> states, signs = np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]]), np.array([1, 1, -1, -1])
        >>> linearised_weights(states, signs, beta=0.05, learning_rate=0.4, steps=50).round(8).tolist()
        [0.48942679, 0.24546689]
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    at_least(steps, 0, name="steps")
    n = len(states)
    left, singular, right = np.linalg.svd(np.asarray(states, dtype=np.float64), full_matrices=False)
    eigenvalues = singular**2 / n
    limit = largest_stable_step(float(eigenvalues[0]), beta=beta)
    if learning_rate > limit * (1 + 1e-9):
        raise ConfigError(f"learning_rate is {learning_rate!r}, but the linear recursion runs away above {limit:.6g}")
    rates = np.minimum(learning_rate * beta**2 / 2 * eigenvalues, 2.0)
    slow = rates < 0.5
    lost = np.where(
        slow, -np.expm1(steps * np.log1p(-np.where(slow, rates, 0.0))), 1 - np.where(slow, 0.0, 1 - rates) ** steps
    )
    turns = np.divide(lost, rates, out=np.full_like(rates, float(steps)), where=rates > 0)
    pull = singular * (left.T @ signs) * (2 / n)  # b_w in the coordinates of `right`
    return (learning_rate * beta / 4 * turns * pull) @ right


def departure_from_line(smoothness: float, *, beta: float, learning_rate: float, steps: int) -> float:
    r"""How far the path may leave the line of its first step: $\epsilon = \eta \beta^2 \lambda_{\max}(S)\,(t - 1)/4$.

    $\lVert w(t) - t\, w(1) \rVert \le \epsilon\, t \lVert w(1) \rVert$ for any data, class sizes and stable step: each
    pull differs from $\tfrac12$ by at most $|r_i|/4$, so step $\tau + 1$ differs from the first by at most
    $\frac{\eta\beta^2}{2} \lambda_{\max}(S) \lVert w(\tau) \rVert$, where
    $\lVert w(\tau) \rVert \le \tau \lVert w(1) \rVert$; summed over $\tau < t$.

    Args:
        smoothness: $\lambda_{\max}(S)$.
        beta: DPO's temperature.
        learning_rate: Step size.
        steps: Full-batch steps t.

    Returns:
        The relative departure. 1 or more says nothing.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        2403.18742, section 4.2 ("our upper bound increases linearly") and Figure 4.

    Found:
        Ours. It says for how long the drift really grows linearly: while $\eta\beta^2\lambda_{\max}(S)\,t \ll 4$. Holds
        in 300 random problems, and with half of it does not.

    Example:
        >>> departure_from_line(2.0, beta=0.5, learning_rate=1.0, steps=3)
        0.25
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    return learning_rate * beta**2 * smoothness * max(at_least(steps, 0, name="steps") - 1, 0) / 4


def loss_after_first_step(weighted_gap: float, *, beta: float, learning_rate: float) -> float:
    r"""Loss after one full-batch step, to first order: $\log 2 - \eta \beta^2 \lVert b_w \rVert^2 / 8$.

    Weights first move in proportion to the gap, the loss in proportion to its square. By convexity the true loss is
    never below this.

    Args:
        weighted_gap: $\lVert b_w \rVert$, as in `Constants.weighted_gap`.
        beta: DPO's temperature.
        learning_rate: Step size.

    Returns:
        The mean loss in nats, at most log 2.

    Raises:
        ConfigError: A setting is out of range.

    Reference:
        THEORY 1.2; follows 2403.18742, section 4.2.

    Found:
        Ours. A lower bound on the loss, since the loss is convex: a drop of 0.0625 is predicted for the printed problem
        and 0.0598 measured.

    Example:
        >>> round(loss_after_first_step(5**0.5, beta=0.5, learning_rate=0.4), 6)
        0.630647
    """
    positive(beta, name="beta")
    positive(learning_rate, name="learning_rate")
    return math.log(2) - learning_rate * beta**2 * weighted_gap**2 / 8
