"""What a model gives to many texts, in shards that are cached by content, so that killed work resumes.

Which text is in which shard follows from the texts and the model alone. A shard is written atomically with its own
checksum; one that is damaged is told, computed again and replaced. Several processes share the shards out.
"""

import contextlib
import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from prefdyn._cache import cache_root
from prefdyn._files import atomic_write
from prefdyn._progress import step
from prefdyn.errors import ModelError, StoreError
from prefdyn.models.forward import Reader, Sequences
from prefdyn.models.load import LanguageModel, quiet
from prefdyn.provenance import content_hash
from prefdyn.store import pack, read_manifest, read_packed, write_manifest

CACHE_SCHEMA = 3
"""Raised whenever the same inputs would give other numbers, so that old shards are not used."""
_WORK = 2e12
"""Tokens of a shard times parameters of the model: seconds of work, so that little is lost with the process."""
_SHARD = {"cpu": (2048, 65536), "cuda": (65536, 1 << 20)}
"""Fewest and most tokens of a shard."""
_SMALL_MODEL = 100_000_000
"""Up to this many parameters one batch gives a CPU's threads too little to share."""
LONG = 600.0
"""Seconds from which work counts as long."""


@runtime_checkable
class Items(Protocol):
    """Texts in an order of their own, the shortest first."""

    @property
    def offsets(self) -> np.ndarray:
        """Tokens before each text, and in all (n + 1,)."""
        ...

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each (n,)."""
        ...


@runtime_checkable
class Worker(Protocol):
    """What one model is asked of each text."""

    lm: LanguageModel
    kind: str
    """Of the device: cpu or cuda."""
    doing: str
    """What the bar says, such as "reading prompts"."""
    measured: str
    """What is no number where a result is not finite, such as "state at the end of"."""

    def batches(self, items: Any, start: int, stop: int, /) -> Iterator[np.ndarray]:
        """Rows start to stop in batches."""
        ...

    def read(self, items: Any, rows: np.ndarray, /) -> Mapping[str, np.ndarray]:
        """The same arrays for every batch, one row per text. Called from several threads at once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be read, in which shards, and where they are kept."""

    items: Any
    """`Items`."""
    bounds: tuple[tuple[int, int], ...]
    """First and last-plus-one sorted row of each shard."""
    key: str
    folder: Path | None
    """None: nothing is kept on disk."""

    def path(self, shard: int) -> Path:
        """The file of one shard."""
        assert self.folder is not None
        return self.folder / f"shard-{shard:05d}.safetensors"

    def place(self, shard: int) -> str:
        """What binds a file to this plan and this shard, whatever it is called."""
        return f"{self.key} {shard}"


def plan(lm: LanguageModel, sequences: Sequences, *, double_norm: bool, cache: bool, check: str = "quick") -> Plan:
    """Cut sorted sequences, whose final states are wanted, into shards and name their place in the cache."""
    digest = hashlib.sha256(sequences.offsets.astype("<i8").tobytes() + sequences.flat.astype("<i4").tobytes())
    settings = f"double_norm={double_norm}{unchecked(check)}"
    return cut(lm, sequences, "states", settings=settings, content=[digest.hexdigest()], cache=cache)


def unchecked(check: str) -> str:
    """What marks numbers in the cache that were read without checks, and so another way."""
    return ",unchecked" if check == "none" else ""


def cut(lm: LanguageModel, items: Items, what: str, *, settings: str, content: Sequence[str], cache: bool) -> Plan:
    """Cut sorted texts into shards and name their place in the cache.

    Args:
        lm: The model.
        items: The texts.
        what: What is wanted of them, which is the name of a folder of the cache.
        settings: Everything else that the numbers depend on.
        content: Digests of the texts.
        cache: Keep what is computed on disk.

    Raises:
        StoreError: The cache's folder cannot be made.
    """
    parameters = sum(part.numel() for part in lm.model.parameters())
    least, most = _SHARD["cpu" if lm.device == "cpu" else "cuda"]
    size = int(np.clip(_WORK / max(1, parameters), least, most))
    cuts = np.unique(np.searchsorted(items.offsets, np.arange(0, int(items.offsets[-1]), size)))
    edges = np.unique(np.concatenate([cuts, [len(items.offsets) - 1]]))
    key = content_hash(
        [
            f"{what} {CACHE_SCHEMA}",
            lm.fingerprint,
            lm.dtype,
            lm.device.partition(":")[0],
            lm.attention,
            f"{settings} shard={size}",
            *content,
        ]
    )
    folder = cache_root() / what / key if cache else None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the cache folder {folder} cannot be made ({error.strerror}); set PREFDYN_CACHE"
            ) from error
    return Plan(
        items=items, bounds=tuple(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)), key=key, folder=folder
    )


def settle_prefix(reader: Reader, work: Plan, *, check: str = "quick") -> tuple[int, str | None]:
    """Decide once per plan whether its prompts' common prefix is shared, and whether batches hold one length only, so
    that a resumed run does as the first did.

    Args:
        reader: The reader.
        work: What it reads.
        check: "none": nothing is tried; no prefix is shared, and every batch holds one length.

    Returns:
        Tokens of the shared prefix (0: not shared) and the reason if it is not.

    Raises:
        ModelError: What the model says of a prompt depends on others of its length beside it.
    """
    if check == "none":
        reader.equal_lengths = True
        return 0, "nothing was checked"
    path = None if work.folder is None else work.folder / "plan.json"
    if path is not None and path.exists():
        with contextlib.suppress(StoreError, ValueError, KeyError, TypeError):
            known = read_manifest(path, kind="plan", fix="it is made again")
            length, reason, parted = int(known["prefix"]), known["reason"], bool(known["equal_lengths"])
            if 0 <= length <= work.items.shared_prefix() and known["key"] == work.key:
                reader.equal_lengths = parted
                if length:
                    reader.use_prefix(work.items.one(0)[:length])
                return length, reason
    with quiet(), step(f"Checking how {reader.lm.name} reads texts beside each other (--check none leaves it out)"):
        reader.check_mates(work.items)
        reason = reader.share_prefix(work.items)
    if path is not None:
        found = {"key": work.key, "prefix": reader.prefix, "reason": reason, "equal_lengths": reader.equal_lengths}
        write_manifest(path, {"kind": "plan", "files": [], **found})
    return reader.prefix, reason


def read_shards(
    worker: Worker,
    work: Plan,
    *,
    name: Callable[[int], str],
    share: tuple[int, int] = (0, 1),
    progress: bool = True,
    limit: Callable[[float], str] | None = None,
) -> dict[int, Mapping[str, np.ndarray]]:
    """Compute every missing shard of this process's share.

    Args:
        worker: The model, and what is asked of it.
        work: What to read.
        name: Sorted row → how to call it in an error.
        share: This process's number and how many there are.
        progress: Show a bar, where stderr is a terminal, and advice.
        limit: Fraction of the work that takes ten minutes → the advice to give for long work.

    Returns:
        Shards by number if nothing is kept on disk, else nothing: read them with `load_shard`.

    Raises:
        ModelError: A result is not finite.
    """
    mine = [shard for shard in range(len(work.bounds)) if shard % share[1] == share[0]]
    todo = [shard for shard in mine if work.folder is None or not _is_sound(work, shard)]
    found: dict[int, Mapping[str, np.ndarray]] = {}
    offsets = work.items.offsets
    total = sum(int(offsets[high] - offsets[low]) for low, high in (work.bounds[shard] for shard in todo))
    bar = _Bar(total, shown=progress, limit=limit, doing=worker.doing)
    with quiet(), _side_by_side(worker) as each, bar:
        for shard in reversed(todo):  # the longest first: memory runs out early or not at all
            arrays = _compute(worker, work, shard, name, bar, each)
            if work.folder is None:
                found[shard] = arrays
            else:
                atomic_write(work.path(shard), pack(arrays, place=work.place(shard)))
    return found


def load_shard(work: Plan, shard: int) -> Mapping[str, np.ndarray]:
    """One shard from the cache.

    Raises:
        StoreError: It is missing or damaged.
    """
    arrays = read_packed(work.path(shard), place=work.place(shard))
    if arrays is None:
        raise StoreError(f"{work.path(shard)} has disappeared while it was needed; run the same command again")
    return arrays


@contextlib.contextmanager
def _side_by_side(worker: Worker) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over batches: on a CPU, small models read one batch per thread, which beats all threads on one batch.

    Each batch is then worked on by one thread, so the numbers do not depend on how many there are.
    """
    threads = torch.get_num_threads()
    if worker.kind != "cpu" or worker.lm.describe()["parameters"] > _SMALL_MODEL:
        yield map
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interruption waits for one batch, not for all that are queued
        torch.set_num_threads(threads)


def _compute(
    worker: Worker,
    work: Plan,
    shard: int,
    name: Callable[[int], str],
    bar: "_Bar",
    each: Callable[..., Iterable[Any]],
) -> Mapping[str, np.ndarray]:
    low, high = work.bounds[shard]

    batches = list(worker.batches(work.items, low, high))
    parts: list[Mapping[str, np.ndarray]] = []
    for rows, part in zip(batches, each(lambda rows: worker.read(work.items, rows), batches), strict=True):
        parts.append(part)
        bar.add(int(work.items.lengths[rows].sum()), worker.kind)
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    sound = np.logical_and.reduce([np.isfinite(part).reshape(high - low, -1).all(axis=1) for part in arrays.values()])
    if not sound.all():
        bad = int(np.flatnonzero(~sound)[0])
        raise ModelError(
            f"the model's {worker.measured} {name(low + bad)} is NaN or infinite (as are {int((~sound).sum()) - 1} "
            f"others of {len(sound)}); {worker.lm.dtype} may overflow in this model: try --dtype float32"
        )
    return arrays


def _is_sound(work: Plan, shard: int) -> bool:
    low, high = work.bounds[shard]
    try:
        arrays = read_packed(work.path(shard), place=work.place(shard))
    except StoreError as error:
        warnings.warn(f"{error}; it is computed again", RuntimeWarning, stacklevel=4)
        return False
    return bool(arrays) and all(len(part) == high - low for part in arrays.values())


class _Bar:
    """Progress on stderr: tokens per second and time left; nothing where it is no terminal, but for advice."""

    def __init__(
        self, total: int, *, shown: bool, limit: Callable[[float], str] | None, doing: str = Reader.doing
    ) -> None:
        self.total, self.done, self.limit = total, 0, limit if shown else None
        self.console = Console(stderr=True)
        self.started = time.perf_counter()
        self.bar: Progress | None = None
        if shown and total and self.console.is_terminal:
            self.bar = Progress(
                SpinnerColumn(),
                TextColumn(doing),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task("", total=total, rate="")

    def __enter__(self) -> "_Bar":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def add(self, tokens: int, kind: str) -> None:
        """Count tokens as read; after some seconds, advise if the rest will take long."""
        self.done += tokens
        if self.bar is None and self.limit is None:
            return
        if kind == "cuda" and self.limit is not None:
            torch.cuda.synchronize()
        took = time.perf_counter() - self.started
        rate = self.done / max(took, 1e-9)
        if self.limit is not None and took > 3.0:
            whole = self.total / rate
            if whole > LONG:
                self.console.print(
                    f"{self.total:,} tokens at {rate:,.0f} tokens/s: about {whole / 60:.0f} minutes. "
                    f"{self.limit(LONG / whole)}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            self.limit = None
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, rate=f"{rate:,.0f} tokens/s")
