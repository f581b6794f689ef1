"""Every figure and table of the papers has exactly one recipe, and every recipe that there is draws what is its own."""

import ast
from pathlib import Path

import pytest

from prefdyn.errors import ConfigError
from prefdyn.experiments import recipes as registry
from prefdyn.experiments.catalogue import CATALOGUE, figures_of, spec_of
from prefdyn.experiments.presets import PRESETS
from prefdyn.experiments.published import SETTINGS
from prefdyn.experiments.recipes import names, recipe_named, recipes_named

A, B, C = "2403.18742", "2408.03459", "2404.04626"


def figures(paper, *numbers, sort="fig"):
    return [f"{paper}-{sort}{number:02d}" for number in numbers]


FULL_SET = {
    "distinguishability": [*figures(A, 1, 3, 4, 6, 10, 17, 18, 19), *figures(A, 1, 2, sort="experiment")],
    "prioritization": figures(A, 5, 7, 12),
    "distribution-shift": figures(A, 2, 8, 13, 14, 20, 21, 22, 23, 24, 25, 26),
    "misalignment": [*figures(A, 9, 11, 15, 16), *figures(A, 2, sort="check")],
    "value-scaling": [
        *figures(B, 1, 2, 5, 7, 8, 9, 10, 11), *figures(B, 1, 2, sort="table"), *figures(B, 1, sort="fit"),
    ],
    "cluster-structure": figures(B, 3, 6),
    "sample-complexity": figures(B, 4),
    "objectives": figures(B, 7, sort="experiment"),
    "gradient-field": [*figures(C, 1), *figures(C, 1, sort="experiment")],
    "robustness-of-claims": figures(A, 1, 3, sort="check"),
    "sft-versus-dpo": figures(A, 3, sort="experiment"),
}  # fmt: skip
"""All of it, spelled out a second time: figures 1 to 26, 1 to 11 and 1, two tables, one fit, four experiments that the
summary or the text propose, three checks, and DPO from three starts."""


def test_every_figure_and_table_has_exactly_one_recipe():
    ids = [spec.id for spec in CATALOGUE]
    assert len(set(ids)) == len(ids)
    assert {name: {spec.id for spec in figures_of(name)} for name in FULL_SET} == {
        name: set(listed) for name, listed in FULL_SET.items()
    }
    assert {spec.recipe for spec in CATALOGUE} == set(FULL_SET)
    for paper, count in ((A, 26), (B, 11), (C, 1)):
        assert set(figures(paper, *range(1, count + 1))) <= set(ids)


def test_ids_are_names_of_files_and_places_are_words():
    assert spec_of("2403.18742-fig03").where == "Figure 3"
    assert spec_of("2408.03459-table02").where == "Table 2"
    assert all(set(spec.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for spec in CATALOGUE)


@pytest.mark.parametrize("name", names())
def test_a_recipe_claims_about_its_own_figures_with_a_rule_each(name):
    recipe = recipe_named(name)
    assert recipe.name == name
    ids = [claim.id for claim in recipe.claims]
    assert len(set(ids)) == len(ids)
    own = {spec.id for spec in recipe.figures}
    assert own == set(FULL_SET[name])
    for claim in recipe.claims:
        assert claim.figure in own
        assert claim.id.startswith(claim.figure)
        assert len(claim.rule) > 40
        assert "holds where" in claim.rule.lower()
    assert set(recipe.setups) <= set(SETTINGS)


def test_claims_of_all_recipes_have_names_of_their_own():
    ids = [claim.id for recipe in recipes_named(["all"]) for claim in recipe.claims]
    assert len(set(ids)) == len(ids)


def test_recipes_are_found_by_name_once_and_in_the_order_of_the_list():
    assert [recipe.name for recipe in recipes_named(["gradient-field", "distinguishability", "gradient-field"])] == [
        "distinguishability",
        "gradient-field",
    ]
    assert tuple(recipe.name for recipe in recipes_named(["all"])) == names()
    with pytest.raises(ConfigError, match="recipe 'gradient-fields' is unknown; did you mean 'gradient-field'"):
        recipes_named(["all", "gradient-fields"])


def test_recipes_do_not_lean_on_each_other():
    """A recipe is a module, or a folder of them; what two recipes need is in a module that is no recipe."""
    room = Path(registry.__file__).parent
    for module in registry.MODULES:
        others = {f"prefdyn.experiments.{name}" for name in registry.MODULES if name != module}
        files = [room / f"{module}.py"] if (room / f"{module}.py").is_file() else list((room / module).glob("**/*.py"))
        assert files
        for path in files:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            imported = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            leaning = {name for name in imported if any(f"{name}.".startswith(f"{other}.") for other in others)}
            assert not leaning, path


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_has_every_setup(preset):
    assert set(PRESETS[preset].setups) == set(SETTINGS)


@pytest.mark.thorough
def test_a_recipe_describes_itself_without_a_framework():
    """`--list` must be quick: recipes load no framework, and no runs."""
    import subprocess
    import sys

    code = (
        "import sys; from prefdyn.experiments.recipes import recipes_named; "
        "[recipe.describe() for recipe in recipes_named(['all'])]; "
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'datasets') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
