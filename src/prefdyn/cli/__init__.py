"""The command line: parse, call one function, print. Results go to stdout, progress and advice to stderr."""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand

from prefdyn import _stopping
from prefdyn.cli import (
    audit,
    bounds,
    check,
    compare,
    data,
    extract,
    field,
    forecast,
    plan,
    push,
    report,
    reproduce,
    score,
    simulate,
    train,
)
from prefdyn.cli.command import command
from prefdyn.cli.options import ALWAYS

app = typer.Typer(
    name="prefdyn",
    help="How preference optimisation (DPO and its relatives) will learn your data.",
    epilog="Start with:  prefdyn audit",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


SEVERAL = ("extract", "score", "train")
"""Commands that work in several processes."""


def _tidied(name: str, run: Callable[..., None]) -> Callable[..., None]:
    """The command, once what killed processes left is cleaned away; a signal unwinds it from here on."""

    @functools.wraps(run)
    def tidied(**options: Any) -> None:
        from prefdyn._cache import sweep
        from prefdyn._processes import is_main_process
        from prefdyn.outputs import discard

        with _stopping.working(), _in_step(name):
            if is_main_process():
                sweep(discard)
            _stopping.keeps(lambda: "what was read so far is kept in the cache; the same command goes on")
            _refuse_early(**options)
            run(**options)

    return tidied


def _refuse_early(*, reading: Any = None, model: Any = None, setup: Any = None, features: Any = None, **_: Any) -> None:
    """Refuse what needs neither data nor a framework to be refused, before either is loaded."""
    from prefdyn._checks import one_of
    from prefdyn.training.settings import TUNES

    if setup is not None:
        one_of(setup.tune, TUNES, name="tune")
        assert setup.loss is not None  # made, and so checked
    if reading is not None and features is None:
        from prefdyn.models.source import ModelSource

        reading.refuse_unknown()
        if isinstance(model, str):
            ModelSource.find(model, revision=reading.revision, trust_remote_code=reading.trust_remote_code)


def _in_step(name: str) -> contextlib.AbstractContextManager[None]:
    """The processes of one launch, which begin and end together; a command that does not know of them refuses."""
    from prefdyn._processes import processes, refuse_several

    if name not in SEVERAL:
        refuse_several(f"prefdyn {name}")
    if processes()[1] == 1:
        return contextlib.nullcontext()
    from prefdyn.models.team import launched

    return launched()


class _Command(TyperCommand):
    """A command whose words that belong to no flag are refused with what was meant, where it reads data."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            from prefdyn._shape import shown

            fix = ""
            if any("--data" in each.opts for each in self.params):
                fix = f"; data are read with --data {shown(rest[0])}"
            ctx.fail(f"Got unexpected extra argument{'s' * (len(rest) > 1)} ({', '.join(map(shown, rest))}){fix}")
        return rest


COMMANDS = {
    module.NAME: module
    for module in (
        audit,
        extract,
        simulate,
        plan,
        bounds,
        field,
        forecast,
        train,
        compare,
        reproduce,
        score,
        data,
        check,
        report,
        push,
    )
}
for _name, _module in COMMANDS.items():
    app.command(_name, cls=_Command, help=_module.HELP, short_help=_module.SUMMARY, epilog=_module.EXAMPLES)(
        command(_name, _tidied(_name, _module.run), ALWAYS)
    )


def _version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(f"prefdyn {version('prefdyn')}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit 0: done; 1: an error of ours, told in one line; 2: usage; 3: a check failed."""
    from prefdyn.errors import PrefdynError

    warnings.showwarning = _tell_warning
    try:
        with _ended_by_signal():
            app()
    except PrefdynError as error:
        _fail(error.typed)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}; this is a bug in prefdyn, --debug shows where")


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Whatever a library makes of a signal, it is a signal that ends the process."""
    try:
        yield
    except BaseException:
        if (number := _stopping.stopped_by()) is not None:
            _stopping.end(number)
        raise


def _tell_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print("prefdyn: warning: " + " ".join(str(message).split()), file=sys.stderr)


def _fail(message: str) -> None:
    if "--debug" in sys.argv:
        raise  # noqa: PLE0704  (only called from an except clause)
    print("prefdyn: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(1)
