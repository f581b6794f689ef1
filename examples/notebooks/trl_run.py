# pyright: reportUnusedExpression=false, reportPrivateImportUsage=false

# %% [markdown]
# # Your own TRL run, watched and compared
#
# *TRL's DPOTrainer with figures by group, and beside it what an audit foretold before the run.*

# %%
import datasets
import transformers
from trl import DPOConfig

import prefdyn as pdy
from prefdyn.models.load import BUILTIN
from prefdyn.training.trl import GroupDPOTrainer

GROUPS = ["saves money", "helps others", "plays it safe", "takes risks"]
pairs = pdy.load_dataset("builtin", groups=GROUPS, limit=60).with_held_out(0.8)
rows = pairs.to_rows()
train, held_out = (
    datasets.Dataset.from_list(
        [
            {name: row[name] for name in ("prompt", "chosen", "rejected", "group")}
            for row in rows
            if row["split"] == side
        ]
    )
    for side in ("train", "held_out")
)
len(train), len(held_out)

# %% [markdown]
# Before the run: what will it learn first? The audit trains the last layer alone, in a simulation.

# %%
foretold = pdy.audit(pairs, "builtin", steps=40)
foretold

# %% [markdown]
# The run: `GroupDPOTrainer` in place of `DPOTrainer`, and the name of the column that holds the group. It trains the
# whole model.

# %%
args = DPOConfig(
    output_dir="trl", beta=0.1, learning_rate=1e-3, max_steps=40, per_device_train_batch_size=32,
    per_device_eval_batch_size=64, eval_strategy="steps", eval_steps=5, logging_steps=5, seed=0, bf16=False,
    use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
)  # fmt: skip
trainer = GroupDPOTrainer(str(BUILTIN), args=args, train_dataset=train, eval_dataset=held_out, group_column="group")
trainer.remove_callback(transformers.PrinterCallback)
_ = trainer.train()

# %% [markdown]
# TRL's own log has a figure for every group, so `metric_for_best_model="eval_rewards/margins/helps others"` works:

# %%
last = [entry for entry in trainer.state.log_history if "eval_loss" in entry][-1]
for name, value in last.items():
    if name.startswith("eval_rewards/margins"):
        print(f"{value:8.3f}  {name}")

# %% [markdown]
# The run as a `Trajectory`, like every other run here:

# %%
run = trainer.trajectory()
run.plot("margin")

# %% [markdown]
# Foretold against trained. The audit moves the head alone and TRL moved everything, so steps do not correspond: look
# at the order, and at the curves once time is rescaled.

# %%
compared = pdy.compare(foretold.trajectory, run, names=("foretold", "trained"))
compared

# %%
print(compared)

# %% [markdown]
# Four groups prove no order: the smallest p that four can have is 1 in 12. Look at the group that the audit calls
# conflicting: it says that the others push it the wrong way, and in the run its margin on held-out pairs falls.
