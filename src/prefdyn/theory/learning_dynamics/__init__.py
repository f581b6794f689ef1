r"""2403.18742, "Understanding the Learning Dynamics of Alignment with Human Feedback".

The paper asks how fast, and in which direction, DPO moves a language model's last layer on statements with two answers,
and says: in proportion to the *distinguishability* D, the distance between the mean states of the two classes. Of that
it states a bound on the drift of the head (Theorem 4.1), a bound on the turning of the decision boundary (4.2), one on
accuracy (4.3), and, for several behaviours at once, who has priority (Eq. 5).

What we found, in one line each; every function's docstring says more under "Found":

- The qualitative claim is right: the first step is exactly $\frac{\eta\beta}{4} b_w$ (`first_update`).
- Theorem 4.1 is false for noisy class means (`published_drift_bound`); with the measured gap it is true for any data,
  with a constant 16.97 times smaller (`drift_bound`).
- Theorem 4.2 needs a start that is not against the gap and class means that are not noisy (`alignment_bound`); the
  gain that really happens is four times as large or more (`sharp_alignment_bound`).
- Theorem 4.3 asks for margins that no state has (`accuracy_bound`); measuring the boundary instead gives a certificate
  (`accuracy_certificate`).
- The priority level is right once groups are weighted (`priority_of_gaps`).

`constants` measures what the statements need; `last_layer` has the closed forms; statements return a `Bound`.
"""

from prefdyn.theory.learning_dynamics.accuracy import (
    accuracy_bound,
    accuracy_certificate,
    certified_share,
    margin_ceiling,
    published_accuracy_margin,
)
from prefdyn.theory.learning_dynamics.alignment import alignment_bound, alignment_failure, sharp_alignment_bound
from prefdyn.theory.learning_dynamics.any_pairs import pair_drift_bound
from prefdyn.theory.learning_dynamics.constants import Constants, constants, subexponential_norm
from prefdyn.theory.learning_dynamics.drift import (
    drift_at_least,
    drift_bound,
    population_drift_bound,
    sufficient_drift_bound,
)
from prefdyn.theory.learning_dynamics.last_layer import (
    departure_from_line,
    descent_direction,
    largest_stable_step,
    linearised_weights,
    loss_after_first_step,
    published_step_limit,
)
from prefdyn.theory.learning_dynamics.priority import (
    first_step_logits,
    first_step_margins,
    first_update,
    pairwise_priority_gap,
    priority_of_gaps,
)
from prefdyn.theory.learning_dynamics.published_alignment import (
    alignment_horizon,
    largest_variance_exponent,
    published_alignment_bound,
    published_alignment_limit,
    smallest_variance_exponent,
)
from prefdyn.theory.learning_dynamics.published_drift import (
    drift_line,
    published_drift_bound,
    published_drift_failure,
    published_drift_limit,
    unproved_drift,
)

__all__ = [
    "Constants",
    "accuracy_bound",
    "accuracy_certificate",
    "alignment_bound",
    "alignment_failure",
    "alignment_horizon",
    "certified_share",
    "constants",
    "departure_from_line",
    "descent_direction",
    "drift_at_least",
    "drift_bound",
    "drift_line",
    "first_step_logits",
    "first_step_margins",
    "first_update",
    "largest_stable_step",
    "largest_variance_exponent",
    "linearised_weights",
    "loss_after_first_step",
    "margin_ceiling",
    "pair_drift_bound",
    "pairwise_priority_gap",
    "population_drift_bound",
    "priority_of_gaps",
    "published_accuracy_margin",
    "published_alignment_bound",
    "published_alignment_limit",
    "published_drift_bound",
    "published_drift_failure",
    "published_drift_limit",
    "published_step_limit",
    "sharp_alignment_bound",
    "smallest_variance_exponent",
    "subexponential_norm",
    "sufficient_drift_bound",
    "unproved_drift",
]
