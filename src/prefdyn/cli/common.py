"""What the commands have in common once arguments are parsed: loading inputs, opening output folders, last words."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefdyn._checks import nearest, one_of
from prefdyn._processes import is_main_process
from prefdyn._progress import frameworks, step
from prefdyn._shape import shown
from prefdyn._typed import Style, words
from prefdyn.cli.command import Given
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError, MissingExtra
from prefdyn.features import FeatureSet
from prefdyn.provenance import Provenance
from prefdyn.settings import Extraction, Source
from prefdyn.store import load_dataset_beside, load_features
from prefdyn.trajectory import Trajectory

if TYPE_CHECKING:
    from prefdyn.report.folders import RunFolder
    from prefdyn.training.trackers import Tracker


def tell(*lines: str) -> None:
    """Advice and progress: to stderr, so that stdout holds the result alone; of several processes, the first tells."""
    for line in lines if is_main_process() else ():
        print(line, file=sys.stderr)


def check_embedding(method: str) -> None:
    """Refuse a picture that cannot be drawn before any work is done."""
    if one_of(method, ("pca", "umap"), name="--embedding") == "umap" and find_spec("umap") is None:
        raise MissingExtra("--embedding umap needs umap-learn: pip install umap-learn, or use --embedding pca")


def stored_features(
    folder: Path, source: Source, given: Given, *, texts: bool = True, but: Sequence[str] = ()
) -> tuple[FeatureSet, PreferenceDataset | None]:
    """Features that `extract` wrote, and the texts beside them if wanted.

    Args:
        folder: Where they are.
        source: Of which the weights of groups are kept.
        given: The flags of the command; those that say what is read and how mean nothing now.
        texts: Whether the texts are wanted.
        but: Flags of reading that mean something all the same.
    """
    for name in ("model", *Source.flags(), *Extraction.flags(), "untrained_twin", "exact"):
        if name not in (*but, "group_weights") and given.said(name):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} cannot be used with --features; use it with `prefdyn extract` instead")
    feats = load_features(folder)
    if source.group_weights is not None:
        feats = feats.weighted(source.group_weights)
    return feats, load_dataset_beside(folder) if texts else None


def stored_run(folder: Path) -> tuple[Trajectory, Provenance]:
    """The run in an output folder, with its settings, and where it came from."""
    from prefdyn.report.folders import read_folder

    found = read_folder(folder)
    run = found.run()
    origin = {name: dict(found.part(part) or {}) for name, part in (("data", "dataset"), ("model", "model"))}
    versions = dict(found.part("provenance", "versions") or {})
    return run, Provenance(data=origin["data"], model=origin["model"], versions=versions)


def dataset(source: Source, *, seed: int) -> PreferenceDataset:
    """The dataset that is named, unsplit."""
    specs = source.data or ("builtin",)
    with step(f"Reading {', '.join(specs)}"):
        pairs = load_dataset(
            specs[0] if len(specs) == 1 else list(specs),
            group_column=source.group_column,
            columns=source.columns,
            template=source.template,
            skip_bad_rows=source.skip_bad_rows,
            seed=seed,
        )
    if source.groups is not None:
        pairs = pairs.select(group_names(source.groups, pairs.groups))
    if source.limit is not None:
        every, pairs = pairs, pairs.sample(source.limit, seed=seed)
        if len(pairs) < len(every) or len(pairs.groups) > 1:
            tell(f"{len(pairs):,} of {len(every):,} pairs are read: {_per_group(source.limit, len(pairs.groups))}")
    return pairs if source.group_weights is None else pairs.weighted(source.group_weights)


def _per_group(limit: int, groups: int) -> str:
    """What `--limit` took.

    Example:
        >>> _per_group(60, 3), _per_group(60, 1)
        ('--limit is at most 60 of each of 3 groups', '--limit is 60')
    """
    return f"--limit is {limit:,}" if groups == 1 else f"--limit is at most {limit:,} of each of {groups:,} groups"


def split_dataset(source: Source, *, seed: int) -> PreferenceDataset:
    """The dataset that is named, with its held-out pairs."""
    return dataset(source, seed=seed).with_held_out(source.split, seed=seed)


def features(
    folder: Path | None, source: Source, model: str, reading: Extraction, given: Given, *, seed: int
) -> FeatureSet:
    """Features that `extract` wrote, or those of the data under the model."""
    if folder is not None:
        return stored_features(folder, source, given, texts=False)[0]
    with frameworks(for_good=True):
        from prefdyn.models.extract import extract  # a framework, which stored features do not need

    return extract(split_dataset(source, seed=seed), model, reading=reading)


def possible_groups(text: str | None) -> list[str] | None:
    """As `words`, and the whole text, where the data is not read yet and a group may be called just that."""
    found = words(text)
    return found if text is None or found is None or "," not in text else list(dict.fromkeys([text, *found]))


def group_names(text: str, known: Sequence[str]) -> list[str]:
    """The groups that `--groups` names: a comma list, or the whole text where a group is called just that.

    Raises:
        ConfigError: None is named, or one that holds a comma would have to be quoted.
    """
    if text in known:
        return [text]
    found = words(text) or []
    if not found:
        raise ConfigError(f"--groups {shown(text)} names no group{nearest(text, known)}")
    broken = [name for name in known if "," in name and {part.strip() for part in name.split(",")} & set(found)]
    if broken and not set(found) <= set(known):
        quoted = '"' + broken[0].replace('"', '""') + '"'
        raise ConfigError(
            f"--groups {shown(text)}: the name of the group {shown(broken[0])} holds a comma; write it in double "
            f"quotes: --groups {shlex.quote(quoted)}"
        )
    return found


def write_pictures(folder: Path, style: Style | None = None) -> None:
    """The page of a folder that holds a run's other files, and its figures where a style is asked for."""
    from prefdyn.report.folders import read_folder
    from prefdyn.report.html import write_report

    if style is not None:
        with step("Drawing figures"):
            write_styled(read_folder(folder), folder / "figures", style)
    with step("Drawing the page"):
        write_report(folder, folder / "report.html")


def write_styled(run: "RunFolder", folder: Path, style: Style) -> None:
    """Every figure of a run: for the screen, or for a paper."""
    from prefdyn.report.figures import STYLES, write_figures
    from prefdyn.report.panels import pictures

    write_figures(pictures(run), folder, formats=STYLES[style], titled=style == "screen")


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that there are not, or whose package is not there, before any work is done."""
    if not names:
        return
    from prefdyn.training.trackers import check_installed, known

    for name in names:
        check_installed(one_of(name, known(), name="--report-to"))


def log_to(names: Sequence[str], folder: Path, *, command: str, beta: float | None) -> None:
    """Log a finished folder to trackers: settings, curves, the table of groups, and the page where they keep pages.

    The folder is whole by then, whatever becomes of this; trackers that write files write them beside it.
    """
    if not names:
        return
    from prefdyn.report.folders import read_folder
    from prefdyn.training.trackers import report, trackers

    run = read_folder(folder)
    curves = None if run.trajectory is None or run.kind in ("grid", "comparison") else run.run()
    settings = run.part("settings") or {}
    with trackers(
        names, run=command, folder=folder.with_name(f"{folder.name}-tracked"), beta=beta, settings=settings
    ) as started:
        for each in started:
            report(each, curves, run.groups)
            keep_page(each, folder / "report.html")


def keep_page(tracker: "Tracker", path: Path) -> None:
    """Give the page to a tracker; one that keeps none is told of."""
    if not tracker.page(path):
        tell(f"{tracker.name} keeps no pages: {path} stays a file")


def tell_result(summary: Mapping[str, Any], table: Callable[[Any], str], *, as_json: bool) -> None:
    """The result, as JSON or as a table, on stdout; its warnings and findings on stderr."""
    print(json.dumps(summary, ensure_ascii=False) if as_json else table(summary), flush=True)
    for line in summary.get("warnings", ()):
        tell(f"warning: {line}")
    for finding in summary.get("findings", ()):
        if finding["severity"] != "note":
            tell(f"{finding['severity']}: {finding['says']}")


def last_words(folder: Path, *, next_command: str) -> None:
    """Name the files written and the next command."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.glob("[!.]*"))
    tell(f"Wrote {folder}: {', '.join(names)}", f"Next: {next_command}")
