# pyright: reportUnusedExpression=false

# %% [markdown]
# # Plan and retrain
#
# *One group is left behind. What should each group count, is it worth it, and does training agree?*

# %%
import prefdyn as pdy

SIZES = {"saves money": 200, "is kind to animals": 200, "helps others": 200, "seeks change": 80}
whole = pdy.load_dataset("builtin", groups=list(SIZES))
kept = [pdy.load_dataset(whole, groups=[name], limit=size).to_rows() for name, size in SIZES.items()]
pairs = pdy.PreferenceDataset.from_rows([row for rows in kept for row in rows], name="uneven").with_held_out(0.7)
features = pdy.extract(pairs, "builtin", progress=False)
features

# %% [markdown]
# Weights for the worst group, by exact slopes and re-runs. Each fold's weights are judged on pairs that had no say in
# them.

# %%
plan = pdy.plan_weights(features, "worst", steps=25, progress=False)
plan

# %%
print(plan.because)

# %% [markdown]
# `plan.change` says whether the gain is above 0 with its whole interval; where it is not, the weights stay 1. Now
# train both ways, here the last layer, and look at the held-out pairs, which took no part in the plan:

# %%
given = pdy.train(features, tune="last-layer", steps=25)
weighted = pdy.train(features.weighted(plan.weights()), tune="last-layer", steps=25)
for name in features.groups:
    before, after = (run.final("loss", group=name, split="held_out") for run in (given, weighted))
    print(f"{name:20} counts {plan.weights()[name]:5.2f}   held-out loss {before:.3f} -> {after:.3f}")

# %% [markdown]
# The slow group gains what the others pay: that is what "worst" asks for, and `"mean"` or `"protect=GROUP:LOSS"` ask
# otherwise.

# %%
weighted.plot("loss")

# %%
compared = pdy.compare(given, weighted, names=("as given", "weighted"))
compared

# %% [markdown]
# On the command line `prefdyn plan weights` writes `plan.yaml`, and `prefdyn train --config plan.yaml` is that run.
# `GroupDPOTrainer(…, group_weights=plan.weights())` minimises the same with TRL.
