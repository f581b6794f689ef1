"""TRL's DPOTrainer by group: what three more lines show, that they change nothing, and that prefdyn's own run agrees.

Run: uv run python examples/trl_groups.py
"""

# pyright: reportPrivateImportUsage=false
# (TRL loads its public names on first use, where a type checker does not see them)

import os
import tempfile
import warnings
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # TRL reports its use over the network unless it is told not to
warnings.simplefilter("ignore", FutureWarning)  # of TRL and transformers, about their own arguments

import datasets  # noqa: E402
import numpy as np  # noqa: E402
import transformers  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402

import prefdyn as pdy  # noqa: E402
from prefdyn.maths.optimizers import SGD  # noqa: E402
from prefdyn.models.load import BUILTIN  # noqa: E402
from prefdyn.training.trl import GroupDPOTrainer  # noqa: E402  <- the first of three lines

STEPS, RATE, BETA = 8, 0.005, 0.1
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
VALUES = {
    "kind": (6, " I would help them at once.", " I would leave them alone."),
    "formal": (6, " Certainly, I shall attend.", " Sure, see you there!"),
    "casual": (3, " Sure, see you there!", " Certainly, I shall attend."),
}
"""How many pairs each group has, and its chosen and rejected answer: two groups want the opposite."""


def pairs() -> list[dict[str, str]]:
    """The groups' pairs, one a day."""
    return [
        {"prompt": f"It is {day}. What do you say?", "chosen": chosen, "rejected": rejected, "group": group}
        for group, (count, chosen, rejected) in VALUES.items()
        for day in DAYS[:count]
    ]


def dpo(kind: Any, rows: list[dict[str, str]], **more: Any) -> Any:
    """A trained trainer: plain descent on all pairs at once, so that every step sees the same."""
    args = DPOConfig(
        output_dir=tempfile.mkdtemp(), beta=BETA, learning_rate=RATE, lr_scheduler_type="constant", optim="sgd",
        max_steps=STEPS, per_device_train_batch_size=len(rows), per_device_eval_batch_size=len(rows), logging_steps=1,
        max_grad_norm=0.0, bf16=False, use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
        gradient_checkpointing=False, eval_strategy="steps", eval_steps=STEPS, log_level="error",
    )  # fmt: skip
    data = datasets.Dataset.from_list(rows)
    trainer = kind(str(BUILTIN), args=args, train_dataset=data, eval_dataset=data, **more)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def main() -> None:
    """Train three times and compare."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    rows = pairs()
    plain = dpo(DPOTrainer, rows)
    grouped = dpo(GroupDPOTrainer, rows, group_column="group")  # <- the second
    run = grouped.trajectory()  # <- the third

    losses = [[row["loss"] for row in each.state.log_history if "loss" in row] for each in (plain, grouped)]
    same = losses[0] == losses[1] and all(
        left.detach().numpy().tobytes() == right.detach().numpy().tobytes()
        for left, right in zip(plain.model.parameters(), grouped.model.parameters(), strict=True)
    )
    metrics = grouped.evaluate()
    print(f"TRL says: margin {metrics['eval_rewards/margins']:.3f}, accuracy {metrics['eval_rewards/accuracies']:.0%}")
    print(f"losses and weights with and without the plug-in: {'the same bytes' if same else 'they differ'}")

    own = pdy.train(
        pdy.PreferenceDataset.from_rows(rows), "builtin", tune="full", objective=pdy.DPO(beta=BETA), optimizer=SGD(),
        learning_rate=RATE, steps=STEPS, batch_size=len(rows), clip=None, record="all", probes=(), probe_pairs="all",
    )  # fmt: skip
    print(f"\nafter {STEPS} steps{'TRL, by group':>21}{'prefdyn train':>16}{'accuracy':>11}{'chosen falls':>14}")
    apart = 0.0
    for group in run.groups:
        theirs, ours = run.final("margin", group=group, split="held_out"), own.final("margin", group=group)
        accuracy, falling = (
            run.final(name, group=group, split="held_out") for name in ("reward_accuracy", "chosen_falling")
        )
        print(f"{group:13}{theirs:21.4f}{ours:16.4f}{accuracy:11.0%}{falling:14.0%}")
        steps, curve = run.curve("margin", group=group)  # of training: before each update
        apart = max(apart, abs(theirs - ours), float(np.abs(curve - own.curve("margin", group=group)[1][steps]).max()))
    print(f"\nlargest difference of a margin over all groups and steps: {'under 1e-4' if apart < 1e-4 else apart}")


if __name__ == "__main__":
    main()
