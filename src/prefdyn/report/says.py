"""What a simulation says of a run, and what it does not."""

from prefdyn.report.folders import RunFolder
from prefdyn.report.responses import sketch_words, trust_words
from prefdyn.report.tables import minus
from prefdyn.report.text import visible


def says(run: RunFolder) -> tuple[list[str], list[str]]:
    """What the simulation can and what it cannot tell, given how this run was made."""
    settings = run.part("settings") or {}
    does = [
        "It trains the model's last layer alone on the states that the frozen model has for these prompts"
        + (" and responses, " if run.responses else ", ")
        + (
            "in full batches of plain gradient descent. "
            if settings.get("optimizer", "sgd") == "sgd" and settings.get("batch_size", "full") == "full"
            else f"with {visible(settings.get('optimizer', 'sgd'))} and a batch size of "
            f"{visible(settings.get('batch_size', 'full'))}. "
        )
        + (
            "With one-token answers this is exact: the curves are what such a run does, not an approximation."
            if not run.responses
            else trust_words(run)
        ),
        "It gives an order and a relative speed: which groups move first, which wait, which are pushed the wrong "
        "way by the rest, as long as the states stay roughly what they are.",
        "Verdicts rest on held-out pairs, on intervals and on what "
        f"{'swapped sides' if run.responses else 'shuffled labels'} give, never on a training curve alone.",
    ]
    does_not = [
        "It does not give a step count for a LoRA or full run. There the states move too, every layer has its own step "
        "size, and the optimizer is usually Adam on small batches: a group that comes late here can come earlier "
        "there once its features form.",
        "It does not see what the model could learn to represent. A group that looks like noise to the frozen "
        "states may still be learnable by a run that changes them; a group that is separable here is not thereby "
        "understood.",
        "It says nothing about what is generated: no text is sampled, and no behaviour outside these pairs is "
        "measured.",
        "The agreement between this prediction and a real run has not been measured here. Train on a part of the "
        "data, and hold the two against each other with `prefdyn compare` before relying on this one.",
    ]
    if settings.get("learning_rate_rule"):
        rate = minus(settings.get("learning_rate"))
        does.append(
            f"The learning rate, {rate}, is set by a rule: {visible(settings['learning_rate_rule'])}. Another "
            "rate stretches or squeezes the curves; a larger one can reorder groups that overshoot."
        )
    if run.part("model", "tied_head"):
        does_not.append("The model ties its head to its embeddings. The simulation trains a copy of the head, untied.")
    if words := sketch_words(run):
        does_not.append(words)
    if run.part("features", "double_norm"):
        does_not.append(
            "The final norm is applied twice, to match published figures. It is not what the model computes."
        )
    return does, does_not
