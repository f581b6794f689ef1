"""Changes of meaning: they mean something, they are code, and a draw hangs on its seed alone."""

import ast
from collections import Counter

import pytest

from scripts.mutate import PACKAGE, ROOMS, changes_in, drawn, equivalents, nearest

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def every():
    return [change for path in sorted(PACKAGE.rglob("*.py")) for change in changes_in(path)]


def test_a_change_gives_code_that_means_something_else():
    path = PACKAGE / "dynamics" / "order.py"
    text = path.read_bytes()
    found = changes_in(path)
    assert len({(change.span, change.after) for change in found}) == len(found) > 50
    for change in found:
        start, stop = change.span
        changed = ast.parse(text[:start] + f"({change.after})".encode() + text[stop:])
        assert ast.dump(changed) != ast.dump(ast.parse(text)), change
        assert text[:start].count(b"\n") + 1 == change.line


def test_the_nine_that_went_unnoticed_are_among_them(every):
    known = {(change.file, change.before, change.after) for change in every}
    assert {
        ("maths/kernel.py", "xp.sqrt(weight)", "weight"),
        ("dynamics/order.py", "0.025", "0.05"),
        ("report/run_curves.py", "int(above[-1]) + 1", "int(above[-1]) - 1"),
        ("theory/measured.py", "2 * model.per_cluster", "2 / model.per_cluster"),
    } <= known


def test_texts_types_and_what_an_error_says_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.mutate.PACKAGE", tmp_path)
    path = tmp_path / "module.py"
    path.write_text(
        '"""1 < 2."""\nfrom typing import Literal\n\n\n@cached(size=3)\ndef f(a: Literal[1, 2] = 1) -> "4 + 5":\n'
        '    """6."""\n    if a > 7:\n        raise ValueError(f"{8 + a}" + str(9))\n    return f"{a + 10}" "b" + "c"\n'
    )
    assert [(change.before, change.after) for change in changes_in(path)] == [
        ("1", "2"),
        ("a > 7", "a >= 7"),
        ("7", "8"),
    ]


def test_a_draw_is_its_seeds_spread_over_rooms_and_kinds_and_the_start_of_a_longer_one(every):
    draw = drawn(every, count=165, seed=0, rooms=ROOMS)
    assert drawn(every[::-1], count=165, seed=0, rooms=ROOMS) == draw
    assert drawn(every, count=500, seed=0, rooms=ROOMS)[:165] == draw
    assert drawn(every, count=165, seed=1, rooms=ROOMS) != draw
    assert Counter(change.room for change in draw) == dict.fromkeys(ROOMS, 15)
    assert len({change.kind for change in draw}) == 9


def test_the_nearest_tests_come_first():
    assert nearest("maths/geometry.py")[:2] == ["src/prefdyn/maths/geometry.py", "tests/maths/test_geometry.py"]
    assert "tests/dynamics/test_engine.py" in nearest("dynamics/measure.py")
    assert "tests/report/test_reading.py" in nearest("report/run_curves.py")


def test_what_is_told_to_be_equivalent_is_still_there(every):
    assert all(len(because) > 10 for because in equivalents(every).values())
