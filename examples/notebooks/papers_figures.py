# pyright: reportUnusedExpression=false

# %% [markdown]
# # The papers' figures on your model
#
# *Figures of three papers on the learning dynamics of DPO, made again from your data and your model, with every claim
# judged.*
#
# `preset="smoke"` is small and quick, and says that something runs, not that a paper is right: take `"small"` for
# that, and put your own in place of `"builtin"`.

# %%
import prefdyn as pdy

found = pdy.run_recipe("distinguishability", preset="smoke", data="builtin", model="builtin")
found

# %% [markdown]
# A figure as it stands in the paper:

# %%
found.plot("2403.18742-fig03")

# %%
[figure.id for figure in found.figures]

# %% [markdown]
# One claim in full: how it was measured, and by which rule it is judged. One repetition of a smoke test is no
# evidence, so nothing is judged here.

# %%
claim = found.claims[1]
for name in ("where", "statement", "paper_value", "measured", "rule", "holds", "because"):
    print(f"{name}: {claim[name]}")

# %% [markdown]
# The third paper's plane of gradients needs no model at all:

# %%
plane = pdy.run_recipe("gradient-field", preset="smoke")
plane.plot()

# %% [markdown]
# The numbers behind a figure, for your own drawing:

# %%
figure = next(figure for figure in found.figures if figure.id == "2403.18742-fig03")
figure.table().select(["panel", "series", "x", "y"]).to_pandas().head()

# %% [markdown]
# `prefdyn reproduce all --preset small` writes them all with a page; [what we found](../reproduced/index.md) stands
# beside the published figures.
