r"""Why a chosen answer can lose probability while its margin grows: rates of log π, which the plane cannot show.

In the plane x1 only ever grows. It falls where answers share parameters: through other pairs (the head), or through the
hidden state. All rates are those of gradient flow on the mean DPO loss at one moment, in nats per unit of time.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, log_softmax

from prefdyn._arrays import finite
from prefdyn._checks import positive
from prefdyn.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProbRates:
    """How fast the log-probabilities of both answers change, one entry per pair (or a number for one pair)."""

    chosen: Any
    """d log π(chosen) / dt."""
    rejected: Any
    """d log π(rejected) / dt."""
    other: Any = math.nan
    """d log π of a token that is neither, where it is the same for all of them."""

    @property
    def difference(self) -> Any:
        """d(log π(chosen) - log π(rejected)) / dt: the margin's, without beta."""
        return self.chosen - self.rejected

    @property
    def displaced(self) -> Any:
        """Whether the chosen answer loses probability although its lead over the rejected one grows."""
        return (self.chosen < 0) & (self.difference > 0)


def own_rates(pi_w: Any, pi_l: Any, *, pull: Any = 1.0) -> LogProbRates:
    r"""One pair, trained head or logits: $c(1-\pi_w+\pi_l)$, $-c(1+\pi_w-\pi_l)$, any other token $-c(\pi_w-\pi_l)$.

    Args:
        pi_w: Probability of the chosen token, in [0, 1]; any shape.
        pi_l: Probability of the rejected token, in [0, 1].
        pull: $c = \beta\,\sigma(-r)\,\lVert g \rVert^2/\tau$, the speed of the two logits, at least 0.

    Returns:
        The rates of the chosen, the rejected and any other token.

    Raises:
        DataError: A probability is out of range, or both together are above 1.

    Reference:
        2404.04626, Abstract ("at a faster rate"); THEORY 4.6 (a).

    Found:
        Wrong. As a claim about softmax models: the rejected answer falls faster, in log-probability, exactly where
        $\pi_w > \pi_l$, and slower where the model still prefers it. A pair alone never displaces its own chosen
        answer. At (0.3231, 0.0913): 0.7682, −1.2318 and −0.2318 (differences of log-softmax agree).

    Example:
        >>> found = own_rates(0.25, 0.5)
        >>> float(found.chosen), float(found.rejected), float(found.other)
        (1.25, -0.75, 0.25)
    """
    chosen, rejected = np.asarray(pi_w, dtype=np.float64), np.asarray(pi_l, dtype=np.float64)
    _probabilities(np.stack(np.broadcast_arrays(chosen, rejected), axis=-1), name="pi_w and pi_l")
    lead = chosen - rejected
    return LogProbRates(chosen=pull * (1 - lead), rejected=-pull * (1 + lead), other=-pull * lead)


def log_prob_rates(
    probabilities: Float[np.ndarray, "n V"],
    chosen: Int[np.ndarray, " n"],
    rejected: Int[np.ndarray, " n"],
    similarity: Float[np.ndarray, "n n"],
    margins: Float[np.ndarray, " n"],
    *,
    beta: float,
    tau: float = 1.0,
) -> LogProbRates:
    r"""Several pairs, trained head: every pair moves every other through the similarity of their states.

    $$\frac{d \log \pi_j(y)}{dt} = \frac{\beta}{n\tau} \sum_i \sigma(-r_i)\,
      (e_y - \pi_j)^\top (e_{w_i} - e_{l_i})\, \Sigma_{ij}, \qquad y \in \{w_j, l_j\}$$

    Args:
        probabilities: Row j: the policy's probabilities of all V tokens after prompt j.
        chosen: Token of the chosen answer of each pair.
        rejected: Token of the rejected answer of each pair.
        similarity: $\Sigma_{ij} = g_i \cdot g_j$ of the final hidden states.
        margins: Reward margins $r_i$, beta included; 0 at the start.
        beta: Temperature of DPO, above 0.
        tau: Time constant; 1/η makes one step of gradient descent one unit of time.

    Returns:
        Rates of the chosen and the rejected token of each pair.

    Raises:
        DataError: Shapes do not fit, a token is not in the vocabulary, or a row is no probability distribution.
        ConfigError: beta or tau is not above 0.

    Reference:
        2404.04626, Abstract ("decreases … at a faster rate than it increases"); THEORY 4.6 (b).

    Found:
        Repaired. The field of one pair has x1 growing always; a model trains many. Two pairs that share a rejected
        token are enough: the chosen log-probability falls (−0.0055 in the first step of THEORY's example) while the
        margin grows. Agrees with small steps of a trained head, differentiated by complex steps, to 1e-8.

    Example:
        >>> pi = np.array([[0.05, 0.05, 0.85, 0.05]] * 2)
        >>> found = log_prob_rates(pi, np.array([0, 2]), np.array([1, 1]), np.array([[1.0, 4], [4, 17]]), np.zeros(2),
        ...                        beta=0.1, tau=10.0)
        >>> found.chosen.round(4).tolist()[0], found.rejected.round(4).tolist()[0], bool(found.displaced[0])
        (-0.0055, -0.0205, True)
    """
    positive(beta, name="beta")
    positive(tau, name="tau")
    n, vocabulary = probabilities.shape
    if n == 0:
        raise DataError("log_prob_rates was given 0 pairs; give at least one")
    for name, tokens in (("chosen", chosen), ("rejected", rejected)):
        if not (tokens.min() >= 0 and tokens.max() < vocabulary):
            raise DataError(
                f"{name} has tokens from {tokens.min()} to {tokens.max()}, but probabilities have {vocabulary} columns;"
                f" give token numbers from 0 to {vocabulary - 1}"
            )
    _probabilities(probabilities, name="probabilities")
    finite(similarity, name="similarity", fix="leave such pairs out")
    pulls = expit(-finite(margins, name="margins", fix="leave such pairs out"))
    # towards[j, i] = pi_j(w_i) - pi_j(l_i); the rest of (e_y - pi_j)^T (e_w - e_l) compares tokens
    towards = probabilities[:, chosen] - probabilities[:, rejected]
    weight = beta / (n * tau) * pulls * similarity.T

    def rate(tokens: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        same = (tokens[:, None] == chosen).astype(np.float64) - (tokens[:, None] == rejected)
        return np.sum((same - towards) * weight, axis=1)

    return LogProbRates(chosen=rate(chosen), rejected=rate(rejected))


def chosen_falls(
    probabilities: Float[np.ndarray, "n V"],
    chosen: Int[np.ndarray, " n"],
    rejected: Int[np.ndarray, " n"],
    similarity: Float[np.ndarray, "n n"],
    margins: Float[np.ndarray, " n"],
) -> Any:
    r"""Which pairs are about to lose probability of their chosen answer: the sign of `log_prob_rates`, any beta.

    Args:
        probabilities: Row j: the policy's probabilities of all V tokens after prompt j.
        chosen: Token of the chosen answer of each pair.
        rejected: Token of the rejected answer of each pair.
        similarity: $\Sigma_{ij} = g_i \cdot g_j$ of the final hidden states.
        margins: Reward margins, beta included.

    Returns:
        One truth value per pair.

    Reference:
        THEORY 4.6 (b); what 2404.04626 cannot see.

    Example:
        >>> pi = np.array([[0.05, 0.05, 0.85, 0.05]] * 2)
        >>> similarity = np.array([[1.0, 4], [4, 17]])
        >>> chosen_falls(pi, np.array([0, 2]), np.array([1, 1]), similarity, np.zeros(2)).tolist()
        [True, False]
    """
    return log_prob_rates(probabilities, chosen, rejected, similarity, margins, beta=1.0).chosen < 0


def hidden_state_rates(
    head: Float[np.ndarray, "V d"], state: Float[np.ndarray, " d"], chosen: int, rejected: int, *, pull: float = 1.0
) -> LogProbRates:
    r"""One pair, the hidden state trained and the head fixed: $\langle W_y - \sum_z \pi_z W_z,\; W_w - W_l \rangle$.

    The margin grows by $\lVert W_w - W_l \rVert^2$. The chosen answer falls where a third token gains more from moving
    along $W_w - W_l$ than the chosen one does.

    Args:
        head: Unembedding matrix, one row per token.
        state: Final hidden state.
        chosen: Token of the chosen answer.
        rejected: Token of the rejected answer.
        pull: $\beta\,\sigma(-r)/\tau$, the speed of the state along $W_w - W_l$, at least 0.

    Returns:
        Rates of the chosen and the rejected token.

    Raises:
        DataError: A token is not in the vocabulary.

    Reference:
        2404.04626, Abstract ("hindrance to the learning capacity towards human-preferred responses"); THEORY 4.6 (c).

    Found:
        Repaired. With a trained body one pair alone can lower its own chosen answer (−0.429 in THEORY's example, with
        the margin growing by 1.04), which no flow in the plane does. Differences of log-softmax agree.

    Example:
        >>> head = np.array([[1.0, 0.0], [0.8, 1.0], [2.0, -2.0]])
        >>> found = hidden_state_rates(head, np.array([0.3, 0.1]), 0, 1)
        >>> round(found.chosen, 5), round(found.rejected, 5), round(found.difference, 5)
        (-0.42878, -1.46878, 1.04)
    """
    if not (0 <= chosen < len(head) and 0 <= rejected < len(head)):
        raise DataError(f"tokens {chosen} and {rejected} must lie between 0 and {len(head) - 1}, the rows of the head")
    direction = head[chosen] - head[rejected]
    along = head @ direction
    expected = float(np.exp(log_softmax(head @ state)) @ along)
    return LogProbRates(
        chosen=pull * (float(along[chosen]) - expected), rejected=pull * (float(along[rejected]) - expected)
    )


def _probabilities(rows: Any, *, name: str) -> None:
    """Raise a `DataError` unless no entry is below 0 and none of the last-axis sums is above 1."""
    bad = ~((rows >= 0).all(axis=-1) & (rows.sum(axis=-1) <= 1 + 1e-6))  # NaN compares false
    if bad.any():
        raise DataError(
            f"{name}: {int(bad.sum())} rows are no probabilities, the first sums to {float(rows[bad][0].sum()):.6g};"
            f" give numbers from 0 to 1 that sum to at most 1"
        )
