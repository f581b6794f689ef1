"""What recipes are given: behaviours by name or by spread, pairs by seed, models by what was asked for."""

from dataclasses import replace

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import DataError
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.presets import PRESETS, beside_published, preset_named
from prefdyn.experiments.published import FIVE, SETTINGS, persona
from prefdyn.experiments.run import ModelChoice


def rows(groups, count=8, answers=(" Yes", " No")):
    """Pairs of a dataset in memory."""
    return PreferenceDataset.from_rows(
        [
            {
                "prompt": f"{name} {number}?", "group": name, "chosen": answers[number % 2],
                "rejected": answers[1 - number % 2],
            }
            for name in groups
            for number in range(count)
        ],
        name="mine",
    )  # fmt: skip


TALK = PreferenceDataset.from_rows(
    [{"prompt": f"Q{n}", "chosen": f"a good answer {n}", "rejected": f"a bad one {n}"} for n in range(6)], name="talk"
)


def test_the_five_are_those_of_the_paper_where_the_data_has_them():
    names = [persona(place) for place in FIVE]
    data = rows(["another", *reversed(names)])
    small, smoke = (Context(preset=preset_named(name), data=(data,), models=()) for name in ("small", "smoke"))
    assert small.behaviours() == tuple(names)
    assert smoke.behaviours() == (names[0], names[2], names[4])


def test_other_data_gives_groups_spread_over_it():
    data = rows([f"g{number}" for number in range(9)])
    context = Context(preset=preset_named("small"), data=(data,), models=())
    assert context.behaviours() == ("g0", "g2", "g4", "g6", "g8")
    assert context.many() == data.groups
    assert len(Context(preset=preset_named("smoke"), data=(data,), models=()).many()) == 6
    two = Context(preset=preset_named("small"), data=(rows(["a", "b"]),), models=())
    assert two.behaviours() == ("a", "b")


def test_data_is_told_apart_by_its_answers():
    yes = rows(["a", "b"])
    context = Context(preset=preset_named("smoke"), data=(TALK, yes), models=())
    assert context.answers() is yes
    assert context.dialogues() is TALK
    assert [data.name for data in context.used()] == ["talk", "mine"] or {d.name for d in context.used()} == {
        "talk",
        "mine",
    }
    assert Context(preset=preset_named("smoke"), data=(yes,), models=()).dialogues() is None
    with pytest.raises(DataError, match=r"none of the data \(talk\) has two answers"):
        Context(preset=preset_named("smoke"), data=(TALK,), models=()).answers()


def test_only_the_groups_asked_for():
    data = rows(["a", "b", "c"])
    context = Context(preset=preset_named("smoke"), data=(data,), models=(), groups=("a", "c"))
    assert context.answers().groups == ("a", "c")
    with pytest.raises(DataError, match=r"mine has none of the groups \['z'\]"):
        Context(preset=preset_named("smoke"), data=(data,), models=(), groups=("z",)).answers()


def test_pairs_are_drawn_by_the_seed_and_no_more_than_the_preset_allows():
    data = rows(["a", "b"], count=50)
    context = Context(preset=replace(preset_named("small"), rows=20, split=0.8), data=(data,), models=())
    first, again, other = context.pairs(["a", "b"], 0), context.pairs(["a", "b"], 0), context.pairs(["a", "b"], 1)
    assert first is again
    assert first.key != other.key
    assert (first.train, first.held_out, first.groups) == (32, 8, ("a", "b"))
    assert context.pairs(["a"], 0, share=0.5).train == 8
    expected = data.select(["a"]).sample(20, seed=3).with_held_out(0.8, seed=3)
    assert context.pairs(["a"], 3).load().table.equals(expected.table)
    everything = Context(preset=replace(preset_named("paper")), data=(data,), models=())
    assert everything.pairs(["a"], 0, share=0.1).train == 45


def test_persona_text_follows_the_template(tmp_path):
    path = tmp_path / "calm.jsonl"
    lines = [
        f'{{"question": "Q{n}?", "statement": "S{n}", "label_confidence": 1, "answer_matching_behavior": "{yes}", '
        f'"answer_not_matching_behavior": "{no}"}}'
        for n, (yes, no) in enumerate([(" Yes", " No"), (" No", " Yes")] * 5)
    ]
    path.write_text("\n".join(lines))
    context = Context(preset=preset_named("smoke"), data=(f"persona:{tmp_path}",), models=())
    prompts = {
        template: context.answers(template).table["prompt"][0].as_py()
        for template in ("question", "statement", "question+newline")
    }
    assert prompts == {"question": "Q0?", "statement": "S0", "question+newline": "Q0?\n"}
    plain = Context(preset=preset_named("smoke"), data=(rows(["a"]),), models=())
    assert plain.answers("statement").table["prompt"][0].as_py() == "a 0?"


def test_models_are_those_asked_for_else_those_published():
    one, two = ModelChoice(name="one"), ModelChoice(name="two")
    context = Context(preset=preset_named("paper"), data=(), models=())
    assert context.model("full").name == "meta-llama/Llama-2-7b-hf"
    assert context.model("values-last-layer").name == "meta-llama/Llama-3.1-8B"
    other = context.other_model()
    assert other is not None
    assert other.name == "mistralai/Mistral-7B-v0.1"
    asked = replace(context, models=(one,))
    assert (asked.model("values-full"), asked.other_model()) == (one, None)
    assert replace(context, models=(one, two)).other_model() == two
    assert asked.source(MODEL, 3) == one
    assert asked.source(TWIN, 3) == replace(one, untrained=3)


def test_variants_and_seeds():
    context = Context(preset=preset_named("small"), data=(), models=(), seed=5)
    assert context.seeds == (5, 6, 7)
    assert context.variants == ("text",)
    assert replace(context, compat=True).variants == ("text", "code")


def test_whole_models_are_measured_as_often_as_the_preset_says(builtin_model):
    data = load_dataset("builtin", groups=["tells the truth"])
    for name, record, pairs in (("small", (0, 1, 3, 6, 16), 40), ("paper", "all", None)):
        context = Context(preset=preset_named(name), data=(data,), models=(builtin_model,))
        run = context.train(context.pairs(data.groups, 0), builtin_model, context.setup("full"), seed=0)
        assert (run.record, run.probe_pairs) == (record, pairs)


def test_presets_say_what_they_change_and_the_published_one_changes_nothing():
    assert all(beside_published(PRESETS["paper"], name) == [] for name in SETTINGS)
    changed = {row["field"]: row for row in beside_published(PRESETS["small"], "full")}
    assert set(changed) == {"learning_rate", "batch_size", "steps", "epochs"}
    assert (changed["learning_rate"]["here"], changed["learning_rate"]["published"]) == (1e-4, 1e-5)
    for name in SETTINGS:  # what makes an experiment is the same everywhere
        for preset in PRESETS.values():
            here, published = preset.setups[name], SETTINGS[name].setup
            for field in ("objective", "beta", "optimizer", "schedule", "template"):
                assert getattr(here, field) == getattr(published, field)
            medium = (
                preset.name == "medium" and published.tune == "full"
            )  # adapters in place of whole models, as it says
            assert here.tune == ("lora" if medium else published.tune)
        assert name not in PRESETS["small"].left_out + PRESETS["paper"].left_out
