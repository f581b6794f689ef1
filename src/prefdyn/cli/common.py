"""What the commands have in common once arguments are parsed: loading inputs, opening output folders, last words."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from prefdyn._checks import nearest, one_of
from prefdyn._shape import shown
from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ConfigError, MissingExtra
from prefdyn.features import FeatureSet
from prefdyn.provenance import Provenance
from prefdyn.store import load_dataset_beside, load_features
from prefdyn.trajectory import Trajectory


def tell(*lines: str) -> None:
    """Advice and progress: to stderr, so that stdout holds the result alone."""
    for line in lines:
        print(line, file=sys.stderr)


def words(text: str | None) -> list[str] | None:
    """A comma list as typed, or None. Blanks around the commas stay out, blanks inside names stay in.

    A name in double quotes may hold commas, and keeps its blanks: `"a, b",c`.

    Example:
        >>> words('a, b c ,"d, e"')
        ['a', 'b c', 'd, e']
    """
    if text is None:
        return None
    return [part for part, quoted in _parts(text) if quoted or part]


def _parts(text: str, *, strip: bool = True) -> list[tuple[str, bool]]:
    """What stands between the commas outside of double quotes, and whether it was quoted, as in CSV."""
    found, rest = [], text
    while True:
        quoted = _QUOTED.match(rest)
        if quoted is not None:
            found.append((quoted[1].replace('""', '"'), True))
            end = quoted.end()
        else:
            part = rest.partition(",")[0]
            found.append((part.strip() if strip else part, False))
            end = len(part) + 1
        if end > len(rest) or (quoted is not None and not quoted[0].endswith(",")):
            return found
        rest = rest[end:]


_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|$)')


def answer_pair(text: str | None) -> tuple[str, str] | None:
    """`POS,NEG` as two answers. Blanks are kept: " Yes" and "Yes" are different tokens."""
    if text is None:
        return None
    parts = [part for part, _ in _parts(text, strip=False)]
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise ConfigError(f"--answers {shown(text)} must be two words with a comma between, such as --answers Yes,No")
    return parts[0], parts[1]


def rate(text: str | float, *, name: str = "--learning-rate") -> float | Literal["auto"]:
    """A learning rate as typed: a number, or "auto"."""
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} {shown(text)} is neither a number nor 'auto'") from None


def rates(text: str) -> list[float | Literal["auto"]]:
    """A comma list of learning rates."""
    return [rate(part) for part in words(text) or []]


def numbers(text: str, *, name: str) -> list[float]:
    """A comma list of numbers."""
    try:
        return [float(part) for part in words(text) or []]
    except ValueError:
        raise ConfigError(f"{name} {shown(text)} must be a number, or numbers with commas between") from None


def counts(text: str, *, name: str) -> list[int]:
    """A comma list of whole numbers."""
    found = [_whole(part) for part in words(text) or []]
    if None in found:
        raise ConfigError(f"{name} {shown(text)} must be a whole number, or several with commas between")
    return [each for each in found if each is not None]


def pair_count(text: str | None, *, name: str) -> int | Literal["all"] | None:
    """A number of pairs, or "all"; None where nothing was typed."""
    if text is None or text == "all":
        return text
    count = _whole(text)
    if count is None or count < 1:
        raise ConfigError(f"{name} {shown(text)} must be a whole number above 0, or all")
    return count


def _whole(text: str) -> int | None:
    """A whole number as typed, also as 100.0 or 1e3; None where it is none, or larger than any count."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) <= _LARGEST else None


_LARGEST = 2**53


def schedules(text: str) -> list[Any]:
    """A comma list of schedules."""
    from prefdyn.maths.optimizers import SCHEDULES

    return [one_of(part, SCHEDULES, name="--schedule") for part in words(text) or []]


def batch_sizes(text: str | int) -> list[int | Literal["full"]]:
    """A comma list of batch sizes: whole numbers of at least 1, or full."""
    found: list[int | Literal["full"]] = []
    for part in words(str(text)) or []:
        size = "full" if part == "full" else _whole(part)
        if size is None or (size != "full" and size < 1):
            raise ConfigError(f"--batch-size {shown(part)} must be a whole number above 0, or full")
        found.append(size)
    return found


def some_of_each(**lists: Sequence[Any]) -> None:
    """Refuse a comma list with nothing in it."""
    for name, values in lists.items():
        if not values:
            raise ConfigError(f"--{name.replace('_', '-')} names nothing; give at least one value")


def check_embedding(method: str) -> None:
    """Refuse a picture that cannot be drawn before any work is done."""
    if one_of(method, ("pca", "umap"), name="--embedding") == "umap" and find_spec("umap") is None:
        raise MissingExtra("--embedding umap needs umap-learn: pip install 'prefdyn[umap]', or use --embedding pca")


def share(split: float) -> float:
    """The training share, above 0 and at most 1."""
    if not 0 < split <= 1:
        raise ConfigError(f"--split is {split}, but must be above 0 and at most 1, such as 0.9")
    return split


_OF_EXTRACTION = (
    "data", "groups", "limit", "group_column", "columns", "template", "skip_bad_rows", "answers", "max_length",
    "revision", "double_norm", "untrained_twin", "eos",
)  # fmt: skip


def stored_features(
    folder: Path, options: Mapping[str, Any], *, texts: bool = True
) -> tuple[FeatureSet, PreferenceDataset | None]:
    """Features that `extract` wrote, and the texts beside them if wanted; data and model options make no sense then."""
    changed = {name: options.get(name) for name in _OF_EXTRACTION} | {"model": options.get("model") != "builtin"}
    changed["sketch"] = options.get("sketch", 4096) != 4096
    for name, given in changed.items():
        if given not in (None, False):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} cannot be used with --features; use it with `prefdyn extract` instead")
    return load_features(folder), load_dataset_beside(folder) if texts else None


def stored_run(folder: Path) -> tuple[Trajectory, Provenance]:
    """The run in an output folder, with its settings, and where it came from."""
    from prefdyn.report.folders import read_folder

    found = read_folder(folder)
    run = found.run()
    origin = {name: dict(found.part(part) or {}) for name, part in (("data", "dataset"), ("model", "model"))}
    versions = dict(found.part("provenance", "versions") or {})
    return run, Provenance(data=origin["data"], model=origin["model"], versions=versions)


def dataset(options: Mapping[str, Any]) -> PreferenceDataset:
    """The dataset that the data options name."""
    specs: Sequence[str] = options["data"] or ["builtin"]
    found = load_dataset(
        specs[0] if len(specs) == 1 else list(specs),
        group_column=options["group_column"],
        columns=options["columns"],
        template=options["template"],
        skip_bad_rows=options["skip_bad_rows"],
        seed=options["seed"],
    )
    if options["groups"] is not None:
        found = found.select(group_names(options["groups"], found.groups))
    return found if options["limit"] is None else found.sample(options["limit"], seed=options["seed"])


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


def extraction(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `extract` from the model options."""
    return {**reading(options), "sketch": options["sketch"], "double_norm": options["double_norm"]}


def reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """How the tokens of pairs are read with a model, whatever is wanted of them."""
    return {
        "answers": answer_pair(options["answers"]),
        "eos": options["eos"],
        "revision": options["revision"],
        "dtype": options["dtype"],
        "device": options["device"],
        "attn": options["attn"],
        "batch_tokens": options["batch_tokens"],
        "max_length": options["max_length"],
        "trust_remote_code": options["trust_remote_code"],
    }


def save_config(folder: Path, options: Mapping[str, Any]) -> None:
    """Save the resolved flags as config.yaml, to be given back with --config."""
    (folder / "config.yaml").write_text(config_text(options), encoding="utf-8")


def config_text(options: Mapping[str, Any]) -> str:
    """The resolved flags as YAML."""
    import yaml

    left = {"config", "out", "force", "json_output", "debug"}
    flat = {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if name not in left and value is not None
    }
    return yaml.safe_dump(flat, sort_keys=True, allow_unicode=True)


def write_pictures(folder: Path) -> None:
    """Figures and report of a folder that holds a run's other files."""
    from prefdyn.report.compare import compare_drawings
    from prefdyn.report.drawings import write_drawings
    from prefdyn.report.figures import write_figures
    from prefdyn.report.folders import read_folder
    from prefdyn.report.grid import grid_drawings
    from prefdyn.report.html import write_report
    from prefdyn.report.panels import panels
    from prefdyn.report.proved import drawings
    from prefdyn.report.training import training_drawings

    run = read_folder(folder)
    write_figures(panels(run), folder / "figures")
    drawn = [*drawings(run), *grid_drawings(run), *compare_drawings(run), *training_drawings(run)]
    write_drawings(drawn, folder / "figures")
    write_report(folder, folder / "report.html")


def last_words(folder: Path, *, next_command: str) -> None:
    """Name the files written and the next command."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.glob("[!.]*"))
    tell(f"Wrote {folder}: {', '.join(names)}", f"Next: {next_command}")
