"""Types and shapes of every call into the package are checked, for a fraction of what jaxtyping asks.

jaxtyping's import hook binds the arguments of every call, checks them, runs the function, and checks arguments and
result. For an ordinary function beartype alone says the same in one pass; where an annotation has a shape, the pass
stands in a context of its own, in which equal names must be equal sizes. What jaxtyping has to look up, it gets.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, ForwardRef, Literal, Self, TypeVar, get_args, get_origin

import jaxtyping

_whole = jaxtyping.jaxtyped


def _any(holds: Callable[[Any], bool], annotation: Any) -> bool:
    """Whether this is true of an annotation or of any part of it."""
    if holds(annotation):
        return True
    if isinstance(annotation, TypeVar):
        parts = (annotation.__bound__, *annotation.__constraints__)
    elif isinstance(annotation, list | tuple):  # the arguments of a Callable
        parts = tuple(annotation)
    elif get_origin(annotation) is Literal:
        parts = ()
    elif get_origin(annotation) is Annotated:
        parts = (annotation.__origin__,)
    else:
        parts = get_args(annotation)
    return any(_any(holds, part) for part in parts)


def is_looked_up(annotation: Any) -> bool:
    """Whether an annotation holds a name that is known only later: text, or `Self`."""
    return _any(lambda part: isinstance(part, str | ForwardRef) or part is Self, annotation)


def has_shape(annotation: Any) -> bool:
    """Whether an annotation holds an array of jaxtyping."""
    arrays = (jaxtyping.AbstractArray, jaxtyping.AbstractDtype)
    return _any(lambda part: inspect.isclass(part) and issubclass(part, arrays), annotation)


def checked(what: Any = None, /, *, typechecker: Callable[[Any], Any]) -> Any:
    """What `jaxtyping.jaxtyped` checks of a function, of a method or of the fields of a dataclass."""
    if what is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isclass(what) and dataclasses.is_dataclass(what) and inspect.isfunction(vars(what).get("__init__")):
        what.__init__ = checked(what.__init__, typechecker=typechecker)
        return what
    if not inspect.isfunction(what) or inspect.isgeneratorfunction(what):
        return _whole(what, typechecker=typechecker)
    annotations = what.__annotations__.values()
    if any(map(is_looked_up, annotations)):
        return _whole(what, typechecker=typechecker)
    once = typechecker(what)
    if not any(map(has_shape, annotations)):
        return once

    @functools.wraps(what)
    def in_context(*given: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        with _whole("context"):
            return once(*given, **named)

    return in_context


def check_calls() -> None:
    """Let jaxtyping's import hook use `checked` from now on."""
    jaxtyping.jaxtyped = checked
