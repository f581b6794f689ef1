"""Kill or stop one of two processes at random moments: how long does the other take to end, and is anything lost?

`uv run python scripts/chaos_ranks.py` does 20 moments over `extract`, `score` and `train` in its three ways to tune, on
the built-in data and model on CPUs. After each, the same command runs again until it is done (training in two
processes, the others in turn alone and in two), and its files are compared with those of an undisturbed run of two
processes, byte by byte but for measured times. Prints a table, and exits with 1 where something was lost or somebody
waited for longer than a minute.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = """
import time
from prefdyn.models import shards
shards._SHARD = {"cpu": (120, 120), "cuda": (120, 120)}
plain = shards._compute
shards._compute = lambda *given: (time.sleep(0.1), plain(*given))[1]
from prefdyn.__main__ import main
main()
"""
"""Prefdyn with many small shards, so that there are moments between them."""
COMMON = ["--groups", "feels lucky,loves music", "--limit", "30"]
TRAIN = ["train", *COMMON, "--batch-size", "8", "--checkpoint-every", "3", "--probe-pairs", "8"]
COMMANDS: dict[str, list[str]] = {
    "extract": ["extract", *COMMON],
    "score": ["score", *COMMON],
    "train last-layer": [*TRAIN, "--tune", "last-layer", "--learning-rate", "0.01", "--steps", "1500"],
    "train lora": [*TRAIN, "--tune", "lora", "--steps", "150"],
    "train full": [*TRAIN, "--tune", "full", "--learning-rate", "3e-4", "--steps", "150"],
}
RESULTS = {
    "extract": ("features.safetensors", "features.parquet", "features.json", "dataset.parquet", "config.yaml"),
    "score": ("scores.parquet", "config.yaml"),
    "train": (
        "trajectory.parquet", "trajectory.json", "modules.parquet", "steps.csv", "pairs.parquet", "groups.csv",
        "config.yaml",
    ),
}  # fmt: skip
"""Files whose bytes must be those of an undisturbed run, by command."""
PATIENCE = 60.0
"""Seconds that a process may take to end once another is dead."""


@dataclass
class Moment:
    """One kill, and what followed."""

    command: str
    killed: int
    how: str
    after: float
    """Seconds from the start, or from the first sign of progress."""
    progressed: bool = False
    waited: float = 0.0
    """Seconds until the other process had ended."""
    code: int | None = None
    said: str = ""
    again: str = ""
    differs: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, and nobody waited for too long."""
        told = self.code == 0 or "ended without a word" in self.said or "no sign of life" in self.said
        told = told or "was not met" in self.said or "did not come" in self.said
        return not self.differs and self.waited <= PATIENCE and told


class Ranks:
    """Two processes of one command, as a launcher would start them."""

    def __init__(self, arguments: Sequence[str], folder: Path, *, count: int = 2, **environment: str) -> None:
        """Args: of prefdyn; where the processes stand, with a cache beside; how many; further variables."""
        self.said = [tempfile.TemporaryFile() for _ in range(count)]  # noqa: SIM115
        port = str(free_port())
        self.processes = []
        for rank in range(count):
            team = {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true",
            }  # fmt: skip
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, *arguments],
                    cwd=folder,
                    env={**alone(folder), **(team if count > 1 else {}), **environment},
                    stdout=subprocess.DEVNULL,
                    stderr=self.said[rank],
                    start_new_session=True,
                )
            )

    def wait(self, seconds: float = 600) -> None:
        """Until all have ended well."""
        for rank, process in enumerate(self.processes):
            code = process.wait(seconds)
            if code:
                raise SystemExit(f"rank {rank} ended with {code}: {self.words(rank)[-2000:]}")

    def words(self, rank: int) -> str:
        """What a process wrote to stderr."""
        self.said[rank].seek(0)
        return self.said[rank].read().decode(errors="replace")

    def end(self) -> None:
        """Whatever still runs ends now."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for said in self.said:
            said.close()


def alone(folder: Path) -> dict[str, str]:
    """The environment of one process."""
    team = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in team}
    return {**kept, "OMP_NUM_THREADS": "1", "PREFDYN_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def ranks(arguments: Sequence[str], folder: Path, **options: object) -> Iterator[Ranks]:
    """`Ranks` that end with the block."""
    started = Ranks(arguments, folder, **options)  # type: ignore[arg-type]
    try:
        yield started
    finally:
        started.end()


def results(name: str, folder: Path) -> dict[str, bytes]:
    """The files to compare, by name; weights besides."""
    wanted = RESULTS[name.split()[0]]
    found = {each: (folder / each).read_bytes() for each in wanted if (folder / each).is_file()}
    for path in sorted((folder / "model").glob("*.safetensors")):
        found[path.name] = path.read_bytes()
    if (folder / "summary.json").is_file():
        summary = json.loads((folder / "summary.json").read_text())
        summary.pop("timings", None)
        found["summary.json"] = json.dumps(summary, sort_keys=True).encode()
    return found


def disturb(
    name: str, folder: Path, draw: random.Random, span: tuple[float, float], how: str, **options: str
) -> Moment:
    """Start two processes and kill or stop one; see how the other ends.

    Args:
        name: Of the command.
        folder: Where to.
        draw: Of the moment and of who is killed.
        span: Seconds to the first sign of progress, and to the end, of an undisturbed run.
        how: "SIGKILL" or "SIGSTOP".
        options: Further variables of the environment.
    """
    early = draw.random() < 0.3
    killed = draw.randrange(2)
    after = draw.uniform(0.2, span[0]) if early else draw.uniform(0.0, 0.8 * (span[1] - span[0]))
    found = Moment(command=name, killed=killed, how=how, after=after)
    with ranks([*COMMANDS[name], "--out", "out"], folder, **options) as pair:
        began = time.monotonic()
        before = signs(folder)
        while not early and signs(folder) == before and pair.processes[0].poll() is None:
            time.sleep(0.01)
        time.sleep(after)
        found.progressed = signs(folder) != before
        victim, other = pair.processes[killed], pair.processes[1 - killed]
        os.kill(victim.pid, getattr(signal, how))
        struck = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            found.code = other.wait(3 * PATIENCE)
        found.waited = time.monotonic() - struck
        lines = [line for line in pair.words(1 - killed).splitlines() if line.startswith("prefdyn: ")]
        found.said = lines[-1] if lines else pair.words(1 - killed)[-200:]
        found.after = struck - began
    return found


def signs(folder: Path) -> frozenset[str]:
    """Shards and checkpoints that there are."""
    places = [*(folder / "cache").glob("*/*/shard-*.safetensors"), *folder.glob("*/checkpoints/step-*")]
    return frozenset(str(path) for path in places)


def finish(name: str, folder: Path, count: int) -> None:
    """Run the command again until it is done."""
    further = ["--resume"] if name.startswith("train") and (folder / "out").is_dir() else []
    done = (folder / "out" / "summary.json").is_file() or (folder / "out" / "features.json").is_file()
    if done and not further:
        return
    with ranks([*COMMANDS[name], "--out", "out", *further], folder, count=count) as pair:
        pair.wait()


def whole(name: str, folder: Path, *, count: int = 2) -> tuple[dict[str, bytes], tuple[float, float]]:
    """An undisturbed run: its files, and when its first sign of progress and its end came."""
    folder.mkdir(parents=True)
    with ranks([*COMMANDS[name], "--out", "out"], folder, count=count) as pair:
        began, before, first = time.monotonic(), signs(folder), None
        while pair.processes[0].poll() is None:
            if first is None and signs(folder) != before:
                first = time.monotonic() - began
            time.sleep(0.01)
        took = time.monotonic() - began
        pair.wait()
    return results(name, folder / "out"), (first if first is not None else took, took)


def differences(one: dict[str, bytes], two: dict[str, bytes]) -> list[str]:
    """Names whose bytes differ, or that one of them lacks."""
    return sorted(name for name in {*one, *two} if one.get(name) != two.get(name))


def table(found: Sequence[Moment]) -> str:
    """The moments as Markdown."""
    rows = ["| # | command | signal | to rank | after s | progress | the other ended after s | with | again | lost |"]
    rows.append("|---|---|---|---|---|---|---|---|---|---|")
    for at, each in enumerate(found, 1):
        said = "done" if each.code == 0 else each.said.removeprefix("prefdyn: ").split(";")[0][:90]
        rows.append(
            f"| {at} | {each.command} | {each.how} | {each.killed} | {each.after:.1f} | "
            f"{'yes' if each.progressed else 'no'} | {each.waited:.1f} | {each.code}: {said} | {each.again} | "
            f"{', '.join(each.differs) or 'nothing'} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Parse, disturb, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stops", type=int, default=5, help="how many of the moments are SIGSTOP")
    parser.add_argument("--only", choices=list(COMMANDS), action="append", help="this command alone")
    given = parser.parse_args()
    names = given.only or list(COMMANDS)
    draw = random.Random(given.seed)
    found: list[Moment] = []
    with tempfile.TemporaryDirectory() as top:
        undisturbed = {}
        for name in names:
            undisturbed[name] = whole(name, Path(top) / f"whole {name}")
            print(f"{name}: progress after {undisturbed[name][1][0]:.1f} s, done after {undisturbed[name][1][1]:.1f} s")
        for at in range(given.moments):
            name = names[at % len(names)]
            files, span = undisturbed[name]
            folder = Path(top) / f"moment {at}"
            folder.mkdir()
            how = "SIGSTOP" if at % max(1, given.moments // max(1, given.stops)) == 1 and given.stops else "SIGKILL"
            moment = disturb(name, folder, draw, span, how)
            # one process adds up gradients in another order than two, so a run of two is ended by two
            count = 2 if name.startswith("train") else 1 + at % 2
            finish(name, folder, count)
            moment.again = "alone" if count == 1 else "two"
            moment.differs = differences(files, results(name, folder / "out"))
            found.append(moment)
            print(table([moment]).splitlines()[-1], flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(found)}\n")
    worst = max(moment.waited for moment in found)
    bad = [moment for moment in found if not moment.sound]
    print(f"{len(found)} moments; the longest wait was {worst:.1f} s; {len(bad)} were not as they should be")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
