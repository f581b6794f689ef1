# pyright: reportUnusedExpression=false

# %% [markdown]
# # A first audit
#
# *Which group is learned first, which gets worse, which labels to check: some seconds, on built-in data and a built-in
# model, offline.*
#
# Put your own in their place: `pdy.load_dataset("pairs.jsonl")` and `model="./my-model"`.

# %%
import prefdyn as pdy

GROUPS = ["saves money", "helps others", "feels lucky", "plays it safe", "takes risks"]
pairs = pdy.load_dataset("builtin", groups=GROUPS, limit=100)
pairs

# %% [markdown]
# What is in the texts themselves, before any model is asked:

# %%
for finding in pdy.preflight(pairs):
    print(finding.says)

# %% [markdown]
# The audit: features of every pair, diagnostics with their nulls, and a simulated run. Its table is the cell's output.

# %%
found = pdy.audit(pairs, "builtin", steps=60)
found

# %% [markdown]
# The same in up to five sentences, each only where its rule holds:

# %%
for answer in found.answers:
    print(f"{answer.sentence}\n")

# %% [markdown]
# `plot()` draws the pictures of the page; the first one shows what is learned first. "takes risks" and "plays it safe"
# want opposite things, and the loss of one of them rises. The labels of "feels lucky" were drawn by lot.

# %%
found.plot()

# %% [markdown]
# Every result is also a data frame, and a run can be cut by group, step and split:

# %%
columns = ["name", "verdict", "stability", "cross_fitted_loss", "distinguishability", "priority"]
found.frame()[columns].sort_values("cross_fitted_loss")

# %%
found.trajectory.select(group=["takes risks", "plays it safe"]).plot("margin")

# %% [markdown]
# A mistake is one line, here as on the command line:

# %% tags=["raises-exception"]
found.plot("loss-curve")

# %% [markdown]
# `pdy.write_report(found, "report")` writes the page, and `prefdyn audit --data pairs.jsonl --model ./my-model` all of
# this and files to compute with. [Reading a report](../report.md) goes through the page.
