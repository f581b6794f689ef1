r"""What a short run cannot do: rankings that do not flip, and how each response of a pair moves by itself."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn._arrays import finite
from prefdyn._checks import positive
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import DPO
from prefdyn.theory.bound import Bound, Condition
from prefdyn.theory.value_scaling.training import LOG3

# rankings -----------------------------------------------------------------------------------------------------------


def flip_threshold(margin: float = LOG3, *, beta: float) -> float:
    r"""$r/\beta$: by how many nats the reference may prefer the rejected response and a margin r still turns it round.

    As a ratio of probabilities it is $e^{r/\beta}$, which overflows a float for small β and so is not formed.

    Args:
        margin: Reward margin r, β inside; log 3, the most that Theorem 4.2 allows at its horizon, if not given.
        beta: Above 0.

    Returns:
        Nats; divide by log 10 for powers of ten.

    Raises:
        ConfigError: beta is not above 0, or the margin is not finite.

    Reference:
        2408.03459, section 4 (failure modes); THEORY 3.8.
    Found:
        Loose. The ratio $3^{1/\beta}$ is right for a margin of log 3, but that margin comes 7.05 times later: at the
        theorem's horizon it is 0.208, so at β = .01 rankings stand from e^20.8 = 1.1e9 on, not from 10^47.7 on.

    Example:
        >>> round(flip_threshold(beta=0.01) / math.log(10), 3), round(math.exp(flip_threshold(beta=0.5)), 9)
        (47.712, 9.0)
    """
    positive(beta, name="beta", fix="TRL's default is 0.1")
    if not math.isfinite(margin):
        raise ConfigError(f"margin is {margin!r}, but must be finite")
    return margin / beta


def flips(
    ref_chosen_logps: Float[np.ndarray, " n"],
    ref_rejected_logps: Float[np.ndarray, " n"],
    margin: float | Float[np.ndarray, " n"],
    *,
    beta: float,
) -> Bool[np.ndarray, " n"]:
    r"""Pairs that the reference ranks wrong (or ties) and the trained model ranks right.

    $0 \le \log\frac{\pi_{ref}(l)}{\pi_{ref}(w)} < \frac{r}{\beta}$.

    Args:
        ref_chosen_logps: Reference log-probability of each chosen response, nats.
        ref_rejected_logps: Of each rejected response.
        margin: Reward margin of each pair, β inside, or one for all.
        beta: Above 0.

    Raises:
        ConfigError: beta is not above 0.
        DataError: A number is not finite.

    Reference:
        2408.03459, section 4 (failure modes, training length); THEORY 3.8.
    Found:
        Confirmed. It is the definition of the margin; equal to the rankings of a trained head, pair by pair.

    Example:
        >>> flips(np.array([-3.0, -3.0, -1.0]), np.array([-2.0, -1.0, -2.0]), 0.15, beta=0.1).tolist()
        [True, False, False]
    """
    positive(beta, name="beta", fix="TRL's default is 0.1")
    lead = _lead(ref_chosen_logps, ref_rejected_logps)
    margins = finite(np.atleast_1d(np.asarray(margin, np.float64)), name="margin", fix="a diverged run ranks nothing")
    return (lead >= 0) & (beta * lead < margins)


def flip_statement(
    ref_chosen_logps: Float[np.ndarray, " n"],
    ref_rejected_logps: Float[np.ndarray, " n"],
    *,
    beta: float,
    margin: float = LOG3,
    largest_margin: float = math.nan,
    time: float = math.nan,
    horizon: float = math.nan,
    measured: float = math.nan,
    group: str | None = None,
) -> Bound:
    r"""Statement: at least this share of pairs is still ranked wrong, for the reference leads by $r/\beta$ or more.

    Args:
        ref_chosen_logps: Reference log-probability of each chosen response, nats.
        ref_rejected_logps: Of each rejected response.
        beta: Above 0.
        margin: The margin r that no pair exceeds: log 3 at the horizon of Theorem 4.2.
        largest_margin: The largest margin of the run, where known; the statement then needs nothing else.
        time: Steps times learning rate, where the largest margin is not known.
        horizon: $\tau_1$ in the same unit, beyond which log 3 is no longer promised (`training.horizon`).
        measured: Share of these pairs that the trained model ranks wrong: 1 minus its policy accuracy.
        group: What it speaks of.

    Raises:
        ConfigError: beta is not above 0.
        DataError: A number is not finite, or there is no pair.

    Reference:
        2408.03459, section 4 (failure modes); THEORY 3.8.
    Found:
        Loose. True in every run, and without Theorem 4.2 wherever the largest margin is known. With log 3 it counts few
        pairs: among leads spread evenly up to log 3/β it counts none, while 81 % of them stand at the horizon.

    Example:
        >>> ref = np.array([-30.0, -3.0]), np.array([-2.0, -2.0])
        >>> print(flip_statement(*ref, beta=0.1, largest_margin=0.21, measured=1.0))
        2408.03459, failure to flip: share of pairs ranked wrong at least 0.5
          holds  r <= log 3: 0.21 <= 1.1
    """
    if len(ref_chosen_logps) == 0:
        raise DataError("flip_statement was given 0 pairs; give at least one")
    lead = _lead(ref_chosen_logps, ref_rejected_logps)
    stand = lead >= flip_threshold(margin, beta=beta)
    says = "r <= log 3" if margin == LOG3 else f"r <= {margin:.3g}"
    conditions = (
        Condition(says=says, measured=largest_margin, limit=math.nan if math.isnan(largest_margin) else margin),
    )
    if math.isnan(largest_margin) and not math.isnan(horizon):
        conditions = (*conditions, Condition(says="t <= K tau log 3/(5 beta^2)", measured=time, limit=horizon))
    return Bound(
        statement="2408.03459, failure to flip",
        quantity="share of pairs ranked wrong",
        direction="at least",
        value=float(stand.mean()),
        trivial=0.0,
        conditions=conditions,
        measured=measured,
        group=group,
        note="without noise margins are 0.208 at the horizon, not log 3: leads a fifth as large stand as well",
    )


def _lead(ref_chosen_logps: np.ndarray, ref_rejected_logps: np.ndarray) -> Float[np.ndarray, " n"]:
    chosen, rejected = np.asarray(ref_chosen_logps, np.float64), np.asarray(ref_rejected_logps, np.float64)
    fix = "leave out pairs without a reference"
    return finite(rejected, name="ref_rejected_logps", fix=fix) - finite(chosen, name="ref_chosen_logps", fix=fix)


# single responses ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRates:
    r"""How fast the reward $\beta \log(\pi/\pi_{ref})$ of each response moves, per unit of time."""

    chosen: Float[np.ndarray, " n"]
    rejected: Float[np.ndarray, " n"]
    published_chosen: Float[np.ndarray, " n"]
    """As the source prints it: β times the rate of the logit, without what the softmax takes back."""
    published_rejected: Float[np.ndarray, " n"]


def response_rates(
    states: Float[np.ndarray, "n d"],
    chosen: Int[np.ndarray, " n"],
    rejected: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n k"],
    margins: Float[np.ndarray, " n"],
    *,
    beta: float,
    time_constant: float = 1.0,
) -> ResponseRates:
    r"""Rates of the chosen and of the rejected response of every pair, for a trained head.

    $$ \tau\,\dot\rho_j(y) = \frac{\beta^2}{N} \sum_i \sigma(-r_i)\,(e_y - \pi_j)^\top (e_{w_i} - e_{l_i})\,
       g_i \cdot g_j, $$

    where the source has $e_y$ in place of $e_y - \pi_j$.

    Args:
        states: $g_i$, the final state of each prompt.
        chosen: Index of the chosen answer, a column of `probabilities`.
        rejected: Index of the rejected answer.
        probabilities: $\pi_j$: what the present model gives each answer that occurs, at each prompt. Rows sum to at
            most 1; answers that occur nowhere have a logit that does not move, and may be left out.
        margins: Present reward margins, β inside.
        beta: Above 0.
        time_constant: $\tau = 1/\eta$, above 0.

    Returns:
        Rates in reward per unit of time, all linear in $1/\tau$. Divide by β for log-probabilities.

    Raises:
        ConfigError: beta or the time constant is not above 0.
        DataError: There is no pair, an answer has no column, or a number is not finite.

    Reference:
        2408.03459, section 4 (single responses); THEORY 3.8, 4.6 and X-12.
    Found:
        Wrong. What is printed is the rate of the logit, without what the softmax takes back: it has the chosen response
        of one pair rising while it falls (its log-probability by 0.0055 in a step). Right with $e_y - \pi_j$, against
        automatic differentiation. The margin, the difference of the two, is the same either way.

    Example:
        >>> both = response_rates(np.ones((1, 1)), np.array([0]), np.array([1]), np.array([[0.3, 0.1]]),
        ...                       np.zeros(1), beta=1.0)
        >>> float(both.published_chosen[0]), round(float(both.chosen[0]), 6), round(float(both.rejected[0]), 6)
        (0.5, 0.4, -0.6)
    """
    positive(beta, name="beta", fix="TRL's default is 0.1")
    positive(time_constant, name="time_constant", fix="give 1 / learning_rate")
    n, k = probabilities.shape
    if n == 0 or min(chosen.min(), rejected.min()) < 0 or max(chosen.max(), rejected.max()) >= k:
        raise DataError(f"chosen and rejected must be columns of probabilities, from 0 to {k - 1}, and not be empty")
    g = finite(np.asarray(states, np.float64), name="states", fix="leave such rows out")
    probs = finite(np.asarray(probabilities, np.float64), name="probabilities", fix="leave such rows out")
    r = finite(np.asarray(margins, np.float64), name="margins", fix="a run that diverged has no rates")
    pulls = beta * beta / (n * time_constant) * DPO(beta=beta).push(r)
    head = np.zeros((k, g.shape[1]))
    np.add.at(head, chosen, pulls[:, None] * g)
    np.add.at(head, rejected, -pulls[:, None] * g)
    logits = g @ head.T
    rows = np.arange(n)
    taken = (probs * logits).sum(axis=1)
    up, down = logits[rows, chosen], logits[rows, rejected]
    return ResponseRates(chosen=up - taken, rejected=down - taken, published_chosen=up, published_rejected=down)
