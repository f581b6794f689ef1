"""CLAIMS: what the papers say, measured on any model and data, and judged by rules that were written before the runs.

| module | holds |
|---|---|
| `recipe` | the nouns: a Recipe plans Runs, and turns their Outcomes into Results, figures and judged Claims |
| `recipes` | the recipes there are, by name |
| `catalogue` | every figure, table and experiment of the papers, and the one recipe that draws it |
| `published`, `presets` | the published choices with their source; what is run in their place where time is short |
| `run`, `work`, `launch` | a unit of work by its content, how it is done, and how many are done side by side |
| `context` | what a recipe is given: pairs, models, seeds, settings |
| `rows`, `claims` | what recipes measure, in tidy rows; claims as rows that say what is made of them, and their rules |
| `statistics`, `judging` | numbers over seeds, and the tests that claims are put to |
| `values`, `clusters` | for recipes on many values: sets of them, whole models trained on them, the paper's clusters |
| `falls`, `couples`, `early` | for recipes on curves: how far a loss falls, which of two leads, heads not yet trained |
| `reproduce` | all of it in one call |

A recipe is a module of its own, and recipes do not lean on each other.
"""
