"""The published JSON Schemas are those of the code, and what commands write is what they say."""

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prefdyn._shape import json_schema, misfit
from prefdyn.planning.audit import audit
from prefdyn.planning.check import check
from prefdyn.planning.simulate import simulate
from prefdyn.planning.weights import plan_weights
from prefdyn.report.check import CHECKED
from prefdyn.report.summary_shape import SUMMARY
from prefdyn.synthetic import gaussian_groups
from scripts.schemas import FOLDER, schemas


def fits(value: Any, shape: Any) -> bool:
    """Whether JSON Schema says so."""
    return jsonschema.Draft202012Validator(json_schema(shape)).is_valid(value)


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_published_schemas_are_those_of_the_code(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == schemas()[name]
    jsonschema.Draft202012Validator.check_schema(json.loads(schemas()[name]))


def test_what_commands_write_is_what_the_schemas_say():
    feats = gaussian_groups(60, groups=3, width=8, held_out=0.2)
    results = [audit(feats, steps=5, progress=False), simulate(feats, steps=5, progress=False),
               plan_weights(feats, steps=5, rounds=1, progress=False)]  # fmt: skip
    for result in results:
        written = json.loads(json.dumps(result.summary()))
        assert fits(written, SUMMARY)
        broken = copy.deepcopy(written)
        broken["groups"] = [{"pairs": 3}]
        assert not fits(broken, SUMMARY)
    told = json.loads(json.dumps(check(feats, steps=5, progress=False).summary()))
    assert fits(told, CHECKED)
    assert misfit(told, CHECKED) is None
    assert not fits({**told, "failed": "no"}, CHECKED)


def test_a_plan_holds_flags_of_train(tmp_path):
    plan = plan_weights(gaussian_groups(60, groups=3, width=8, held_out=0.2), steps=5, rounds=1, progress=False)
    plan.write(tmp_path, texts=None, flags={"data": ["pairs.jsonl"], "beta": 0.1})
    held = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    schema = json.loads(schemas()["plan.schema.json"])
    assert held
    assert jsonschema.Draft202012Validator(schema).is_valid(held)
    assert not jsonschema.Draft202012Validator(schema).is_valid({**held, "betas": 1})


_plain = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=2)
_held = st.recursive(_plain, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
    st.sampled_from("abc"), inner, max_size=3), max_leaves=6)  # fmt: skip
_simple = st.sampled_from([str, int, float, bool, None, object, (str, None), (float, None), [str], [(int, None)]])
_shapes = _simple | st.dictionaries(st.sampled_from(["a", "b?", "c?", "*"]), _simple, min_size=1)


@given(_held, _shapes)
def test_a_shape_and_its_schema_take_the_same_values(held, shape):
    """But whole floats, which JSON does not tell from whole numbers."""
    if "." not in json.dumps(held):
        assert fits(held, shape) == (misfit(held, shape) is None)
