"""Calls into the package are checked as jaxtyping alone would check them: types, shapes, results and fields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintReturnViolation
from jaxtyping import Float, TypeCheckError

from tests.checked import checked, has_shape, is_looked_up

Row = Float[np.ndarray, "n"]
AnyRow = TypeVar("AnyRow", bound=Row)


def checks(what: Any) -> Any:
    return checked(what, typechecker=beartype(conf=BeartypeConf(is_pep484_tower=True)))


@pytest.mark.parametrize(
    ("annotation", "shape", "name"),
    [
        (Row, True, False),
        (Row | None, True, False),
        (dict[str, Row], True, False),
        (tuple[Row, ...], True, False),
        (Callable[[Row], int], True, False),
        (Annotated[Row, "unit"], True, False),
        (AnyRow, True, False),
        (Float, True, False),
        ("Row", False, True),
        (Self, False, True),
        (list["Row"], False, True),
        (int, False, False),
        (None, False, False),
        (Any, False, False),
        (Literal["Row"], False, False),
        (Callable[[int], str], False, False),
        (Annotated[int, Row], False, False),
        (np.ndarray, False, False),
    ],
)
def test_shapes_and_names_that_are_looked_up_are_seen_wherever_they_stand(annotation, shape, name):
    assert (has_shape(annotation), is_looked_up(annotation)) == (shape, name)


def test_types_of_arguments_and_results_are_checked():
    @checks
    def half(number: float) -> int:
        return number / 2 if number > 1 else 0  # type: ignore[return-value]  # wrong for some

    assert half(1) == 0  # an int is a float
    with pytest.raises(BeartypeCallHintParamViolation):
        half("1")
    with pytest.raises(BeartypeCallHintReturnViolation):
        half(3)


def test_shapes_must_agree():
    @checks
    def dot(one: Row, other: Row) -> float:
        return float(one @ other)

    assert dot(np.ones(2), np.ones(2)) == 2
    with pytest.raises(BeartypeCallHintParamViolation):
        dot(np.ones(2), np.ones(3))
    assert dot(np.ones(3), np.ones(3)) == 3  # every call anew


def test_a_result_must_have_the_shape_of_the_arguments():
    @checks
    def longer(row: Row) -> Row:
        return np.append(row, 1.0)

    with pytest.raises(BeartypeCallHintReturnViolation):
        longer(np.ones(2))


def test_calls_within_a_call_have_sizes_of_their_own():
    @checks
    def total(row: Row) -> float:
        return float(row.sum())

    @checks
    def totals(row: Row) -> float:
        return total(row) + total(np.ones(9))

    assert totals(np.ones(2)) == 11


def test_names_that_are_looked_up_are_checked():
    @checks
    def last(row: "Row", other: "Row") -> float:
        return float(row[-1])

    assert last(np.ones(2), np.ones(2)) == 1
    with pytest.raises(TypeCheckError):
        last(np.ones(2), np.ones(3))


@pytest.mark.parametrize("annotation", [int, Row])
def test_fields_of_dataclasses_are_checked(annotation):
    @checks
    @dataclass
    class Held:
        field: annotation  # pyright: ignore[reportInvalidTypeForm]

    good = 1 if annotation is int else np.ones(2)
    assert Held(good).field is good
    with pytest.raises(BeartypeCallHintParamViolation):
        Held("text")


def test_methods_properties_and_generators_are_checked():
    class Held:
        @staticmethod
        @checks
        def one(number: int) -> str:
            return number  # type: ignore[return-value]

        @property
        @checks
        def two(self) -> str:
            return 2  # type: ignore[return-value]

        @checks
        def three(self, upto: int) -> Iterator[int]:
            yield from range(upto)

    with pytest.raises(BeartypeCallHintParamViolation):
        Held.one("1")
    with pytest.raises(BeartypeCallHintReturnViolation):
        _ = Held().two
    assert list(Held().three(2)) == [0, 1]
    with pytest.raises(TypeCheckError):
        Held().three("2")


def test_the_package_itself_is_checked(request):
    """Under the options of pyproject.toml."""
    if not request.config.getoption("jaxtyping_packages"):
        pytest.skip("the checks are off")
    from prefdyn._typed import words

    assert words("a,b") == ["a", "b"]
    with pytest.raises(BeartypeCallHintParamViolation):
        words(3)  # type: ignore[arg-type]
