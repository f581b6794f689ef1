r"""Responses of many tokens: how fast the reward of any token at any context moves while a head is trained.

Contexts: the state before each token of the chosen and of the rejected response of each pair. A response's reward is
the sum of the rewards of its tokens, each at its own context, without division by length. No guarantee is known here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from prefdyn._arrays import finite
from prefdyn._checks import positive
from prefdyn.errors import DataError
from prefdyn.maths.objectives import DPO


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenContexts:
    """The m tokens that are trained on, all responses of all n pairs in a row.

    Raises:
        DataError: There is no token, a state is not finite, or a side is neither +1 nor -1.
    """

    states: Float[np.ndarray, "m d"]
    """State of the model before the token."""
    tokens: Int[np.ndarray, " m"]
    """The token, a row of the head."""
    pair: Int[np.ndarray, " m"]
    """Which pair it belongs to, from 0."""
    side: Int[np.ndarray, " m"]
    """+1 for the chosen response, -1 for the rejected one."""

    def __post_init__(self) -> None:
        if len(self.states) == 0:
            raise DataError("there are 0 tokens to train on; give at least one pair with a token")
        if (np.abs(self.side) != 1).any():
            raise DataError("side must be +1 for tokens of the chosen response and -1 for those of the rejected one")
        finite(self.states, name="states", fix="leave such pairs out")


def token_influence(
    head: Float[np.ndarray, "v d"],
    trained_state: Float[np.ndarray, " d"],
    trained_token: int,
    state: Float[np.ndarray, " d"],
    token: int,
) -> float:
    r"""$T = g \cdot g^*\,\big([y = y'] - p + d_p\big)$: what a token that is trained on does to another's reward.

    $p = S(Wg)[y] + S(Wg^*)[y']$ is the probability of the one token at the other's context, summed over both, and
    $d_p = S(Wg) \cdot S(Wg^*)$ how alike the two distributions are, S being the softmax.

    Args:
        head: W, one row per token of the vocabulary.
        trained_state: g, the state before the trained token.
        trained_token: y'.
        state: $g^*$, the state at which the other token is looked at.
        token: y.

    Returns:
        Symmetric in the two tokens with their states; above 0, training the one raises the other.

    Raises:
        DataError: A token is no row of the head, or a number is not finite.

    Reference:
        2408.03459, section 4.3 and appendix D; THEORY 3.10 and X-13.
    Found:
        Wrong. The text has p as the difference of the two probabilities. The derivative of a log-softmax gives their
        sum, which finite differences confirm to 1e-9; the difference is off by more than a tenth of the rate.

    Example:
        >>> token_influence(np.eye(2), np.zeros(2), 0, np.zeros(2), 0)
        0.0
        >>> round(token_influence(np.eye(2), np.array([1.0, 0.0]), 0, np.array([1.0, 0.0]), 0), 6)  # 2 (1 - .731)^2
        0.144659
    """
    one = TokenContexts(
        states=trained_state[None], tokens=np.array([trained_token]), pair=np.zeros(1, int), side=np.ones(1, int)
    )
    return float(_influences(head, one, state[None], np.array([token]))[0, 0])


def token_reward_rate(
    head: Float[np.ndarray, "v d"],
    trained: TokenContexts,
    margins: Float[np.ndarray, " n"],
    states: Float[np.ndarray, "q d"],
    tokens: Int[np.ndarray, " q"],
    *,
    beta: float,
    time_constant: float = 1.0,
) -> Float[np.ndarray, " q"]:
    r"""How fast the reward $\rho(y) = \beta \log(\pi(y)/\pi_{ref}(y))$ of tokens at given states moves.

    $$ \tau\,\dot\rho(y) = \frac{\beta^2}{n} \sum_i \sigma(-r_i) \Big[\sum_{j \in w_i} T_{ij} - \sum_{j \in l_i} T_{ij}
       \Big] $$

    Args:
        head: Present head W, all tokens of the vocabulary.
        trained: Contexts and tokens of the training pairs.
        margins: Present reward margins of the n pairs, β inside.
        states: $g^*$ of the q tokens asked about.
        tokens: The q tokens.
        beta: Above 0.
        time_constant: $\tau = 1/\eta$, above 0.

    Returns:
        Rates in reward per unit of time. The rate of a pair's margin is the sum over its chosen tokens minus that over
        its rejected ones.

    Raises:
        ConfigError: beta or the time constant is not above 0.
        DataError: The widths differ, a token is no row of the head, a pair has no margin, or a number is not finite.

    Reference:
        2408.03459, section 4.3 and appendix D; THEORY 3.10 and X-13.
    Found:
        Repaired. With p as a sum (`token_influence`) it equals automatic differentiation to 1e-9, for responses of
        unequal length too; for one token at one shared context it is `response_rates`.

    Example:
        >>> g = np.array([[1.0, 0.0], [1.0, 0.0]])
        >>> one = TokenContexts(states=g, tokens=np.array([0, 1]), pair=np.zeros(2, int), side=np.array([1, -1]))
        >>> token_reward_rate(np.zeros((2, 2)), one, np.zeros(1), g, np.array([0, 1]), beta=1.0).tolist()
        [0.5, -0.5]
    """
    positive(beta, name="beta", fix="TRL's default is 0.1")
    positive(time_constant, name="time_constant", fix="give 1 / learning_rate")
    r = finite(np.asarray(margins, np.float64), name="margins", fix="a run that diverged has no rates")
    if trained.pair.min() < 0 or trained.pair.max() >= len(r):
        raise DataError(f"pairs are numbered up to {trained.pair.max()}, but there are {len(r)} margins; give one each")
    pulls = beta * beta / (len(r) * time_constant) * DPO(beta=beta).push(r)[trained.pair] * trained.side
    return _influences(head, trained, states, tokens) @ pulls


def _influences(
    head: Float[np.ndarray, "v d"],
    trained: TokenContexts,
    states: Float[np.ndarray, "q d"],
    tokens: Int[np.ndarray, " q"],
) -> Float[np.ndarray, "q m"]:
    vocabulary, width = head.shape
    if trained.states.shape[1] != width:
        raise DataError(
            f"the head has width {width}, but the trained states {trained.states.shape[1]}; give one model's"
        )
    for asked in (trained.tokens, tokens):
        if len(asked) and not (asked.min() >= 0 and asked.max() < vocabulary):
            raise DataError(f"tokens must be rows of the head, from 0 to {vocabulary - 1}")
    weights = finite(np.asarray(head, np.float64), name="head", fix="check the model's weights")
    there = np.asarray(trained.states, np.float64)
    here = finite(np.asarray(states, np.float64), name="states", fix="leave such rows out")
    at_trained = _probabilities(there @ weights.T)
    at_asked = _probabilities(here @ weights.T)
    same = tokens[:, None] == trained.tokens[None, :]
    chance = at_trained[:, tokens].T + at_asked[:, trained.tokens]
    return (here @ there.T) * (same - chance + at_asked @ at_trained.T)


def _probabilities(logits: Float[np.ndarray, "m v"]) -> Float[np.ndarray, "m v"]:
    found: Any = log_softmax(logits, axis=1)
    return np.exp(found)
