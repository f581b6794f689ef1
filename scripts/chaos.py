"""Kill commands at random moments, run them again, and look whether anything was lost, changed or left behind.

`just chaos` does 200 SIGKILLs and 60 SIGTERMs and SIGINTs over extract (both kinds), train (three tunings, new and over
an older run), audit, score and reproduce, each in a process of its own, on the built-in data and model. After each, the
same command runs again (train with --resume where it had a checkpoint) and every file is compared with that of an
undisturbed run, byte by byte but for measured times; what is left beside the results, or in the cache under a hidden
name, counts as left behind. The table it prints stands in docs/reliability.md. It ends with 1 if anything was lost.

Most processes are forked from one that has the libraries loaded, because loading them takes longer than the work and
would draw nearly all moments to it; every sixth one starts from nothing, so that loading is hit as well.
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOME = ("--groups", "likes company,keeps promises", "--limit", "12")
TRAIN = ("train", *SOME, "--batch-size", "8", "--checkpoint-every", "3", "--probe-pairs", "8", "--out", "out")
COMMANDS: dict[str, tuple[str, ...]] = {
    "extract answers": ("extract", "--limit", "60", "--out", "out"),
    "extract replies": ("extract", "--data", "builtin:responses", "--limit", "5", "--sketch", "64", "--out", "out"),
    "train last-layer": (*TRAIN, "--tune", "last-layer", "--learning-rate", "0.01", "--steps", "30"),
    "train lora": (*TRAIN, "--tune", "lora", "--steps", "12"),
    "train full": (*TRAIN, "--tune", "full", "--learning-rate", "3e-4", "--steps", "12"),
    "train over an older run": (*TRAIN, "--tune", "lora", "--steps", "12", "--force"),
    "audit": ("audit", *SOME, "--steps", "5", "--out", "out"),
    "audit over an older one": ("audit", *SOME, "--steps", "5", "--out", "out", "--force"),
    "score": ("score", "--limit", "30", "--out", "out"),
    "reproduce": ("reproduce", "cluster-structure", "--preset", "smoke", "--out", "out"),
}
LIBRARIES = (
    "prefdyn.cli.common", "prefdyn.experiments.recipes", "prefdyn.experiments.reproduce", "prefdyn.models.extract",
    "prefdyn.models.score", "prefdyn.planning.audit", "prefdyn.planning.training", "prefdyn.report.html",
    "prefdyn.report.reproduce", "prefdyn.training.train",
)  # fmt: skip
PATIENCE = 300.0
"""Seconds that any command may take here."""
_HIDDEN = re.compile(r"\..+\.[0-9a-f]{12}\.(?:partial|old)")
_SECONDS = re.compile(rb"\d[\d.,]* s\b|\d+ of them done before")
STAGES = ("loading", "begun", "reading or training", "writing results", "whole")


# processes -----------------------------------------------------------------------------------------------------------


@dataclass
class Child:
    """A command that runs in a process of its own."""

    pid: int
    home: Path
    process: subprocess.Popen[bytes] | None = None
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self.code is None and self.process is not None:
            self.code = self.process.poll()
        elif self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self) -> int:
        """Its exit code, once it has one."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if time.monotonic() - began > PATIENCE:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"{self.home} did not end")
            time.sleep(0.005)
        return code

    @property
    def said(self) -> str:
        """What it wrote to stderr."""
        return (self.home / "stderr").read_text(errors="replace")


def start(command: Sequence[str], home: Path, *, fresh: bool) -> Child:
    """Start a command in `home`, with a cache of its own: from nothing, or forked with the libraries loaded."""
    environment = {**os.environ, "PREFDYN_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    if fresh:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefdyn", *command],
            cwd=home, env=environment, stdout=(home / "stdout").open("w"), stderr=(home / "stderr").open("w"),
        )  # fmt: skip
        return Child(pid=process.pid, home=home, process=process)
    (home / "stderr").touch()  # it may be killed before it opens it
    pid = os.fork()
    if pid:
        return Child(pid=pid, home=home)
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes what it starts in the background deaf
        os.chdir(home)
        os.environ.update(environment)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        sys.argv = ["prefdyn", *command]
        from prefdyn.__main__ import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        import prefdyn._cache

        prefdyn._cache.leave()
        os._exit(code)
    raise AssertionError


def load() -> None:
    """Load what the commands load, once, without doing anything with it."""
    for name in LIBRARIES:
        importlib.import_module(name)


# what is there -------------------------------------------------------------------------------------------------------


def stage(home: Path, older: bool) -> str:
    """How far a process had come when it was ended, by what it left."""
    hidden = [path for path in home.iterdir() if _HIDDEN.fullmatch(path.name)]
    works = hidden[0] if hidden else None if older else home / "out"
    marker = home / "out" / ".prefdyn.json"
    if not older and marker.is_file() and json.loads(marker.read_text())["finished"]:
        return "whole"
    if works is None or not works.exists():
        return "loading"
    results = [works, *works.glob(".results.*")]
    if any((place / name).exists() for place in results for name in ("steps.csv", "summary.json", "features.parquet")):
        return "writing results"
    if list((works / "checkpoints").glob("step-*")) if (works / "checkpoints").exists() else False:
        return "reading or training"
    cache = home / "cache"
    shards = (
        [path for path in cache.rglob("*") if path.is_file() and "alive" not in path.parts] if cache.exists() else []
    )
    return "reading or training" if len(shards) > 1 else "begun"


def content(folder: Path) -> dict[str, bytes]:
    """Every file with its bytes, without measured times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            raw = path.read_bytes()
            if path.name == "summary.json":
                raw = _without_timings(json.loads(raw))
            elif path.name == "report.html":
                raw = _SECONDS.sub(b"", raw)
            elif path.name == ".prefdyn.json":
                raw = json.dumps(sorted(json.loads(raw)["files"])).encode()
            elif path.name == "steps.csv":
                raw = _without_seconds(raw)
            found[path.relative_to(folder).as_posix()] = raw
    return found


def _without_timings(summary: dict[str, Any]) -> bytes:
    """Nor how much of the work a reproduction found done."""
    summary["timings"] = None
    for recipe in summary.get("recipes", []):
        recipe["seconds"] = None
    if summary["command"] == "reproduce":
        summary["runs"]["done_before"] = None
    return json.dumps(summary).encode()


def _without_seconds(raw: bytes) -> bytes:
    rows = [line.split(b",") for line in raw.splitlines()]
    timed = [place for place, name in enumerate(rows[0]) if b"seconds" in name or b"tokens_per" in name]
    return b"\n".join(b",".join(cell for place, cell in enumerate(row) if place not in timed) for row in rows)


def left_behind(home: Path) -> list[str]:
    """What a finished command should not leave."""
    known = {"out", "cache", "stdout", "stderr"}
    found = [path.name for path in home.iterdir() if path.name not in known]
    found += [str(path.relative_to(home)) for path in (home / "cache").rglob("*") if _HIDDEN.fullmatch(path.name)]
    found += [str(path.relative_to(home)) for path in (home / "out").rglob("*") if _HIDDEN.fullmatch(path.name)]
    return found + [f"alive/{name}" for name in os.listdir(home / "cache" / "alive")]


# one moment ----------------------------------------------------------------------------------------------------------


@dataclass
class Moment:
    """One end of one process, and what became of its work."""

    name: str
    how: signal.Signals
    stage: str
    resumed: bool
    wrong: list[str]


def moment(name: str, how: signal.Signals, at: float, home: Path, reference: Any, *, fresh: bool) -> Moment | None:
    """End a command after `at` seconds; None where it was done before."""
    command, older = COMMANDS[name], "--force" in COMMANDS[name]
    if older:
        shutil.copytree(reference["folder"], home / "out", symlinks=True)
    before = content(home / "out") if older else {}
    child = start(command, home, fresh=fresh)
    time.sleep(at)
    if child.poll() is not None:
        return None
    os.kill(child.pid, how)
    code = child.wait()
    if code == 0:
        return None
    wrong = []
    where = stage(home, older)
    if how != signal.SIGKILL:
        early = code == -how and where == "loading" and not child.said  # before the first line of ours
        lines = [line for line in child.said.strip().splitlines() if line.startswith("prefdyn: ")]
        told = [line for line in lines if "stopped" in line or "interrupted" in line or "terminated" in line]
        if not early and (code != 128 + how or len(told) != 1 or "Traceback" in child.said):
            wrong.append(f"exit {code}, said {child.said.strip()[-300:]!r}")
    if older and (home / "out").exists() and content(home / "out") not in (before, reference["content"]):
        wrong.append("the older result was changed")
    kept = [home / "out", *(path for path in home.iterdir() if _HIDDEN.fullmatch(path.name))]
    resumed = command[0] == "train" and any(any((place / "checkpoints").glob("step-*")) for place in kept[older:])
    again = (*(part for part in command if part != "--force"), "--resume") if resumed else command
    if (
        not resumed
        and not older
        and (home / "out" / "summary.json").exists() | (home / "out" / "features.json").exists()
    ):
        again = (*command, "--force")  # it was whole when it was ended
    second = start(again, home, fresh=False)
    if second.wait() != 0:
        wrong.append(f"the same command again: {second.said.strip()[-300:]!r}")
        return Moment(name, how, where, resumed, wrong)
    found = content(home / "out")
    paths = sorted(found.keys() | reference["content"].keys())
    wrong += [f"{path} differs" for path in paths if found.get(path) != reference["content"].get(path)]
    wrong += [f"{path} is left behind" for path in left_behind(home)]
    return Moment(name, how, where, resumed, wrong)


def undisturbed(name: str, home: Path) -> dict[str, Any]:
    """What a command writes, and how long it takes."""
    home.mkdir()
    command = tuple(part for part in COMMANDS[name] if part != "--force")
    began = time.monotonic()
    child = start(command, home, fresh=False)
    if child.wait() != 0:
        raise RuntimeError(child.said)
    seconds = time.monotonic() - began
    return {"folder": home / "out", "content": content(home / "out"), "seconds": seconds}


def table(moments: Sequence[Moment]) -> str:
    """Rows by command: moments, by stage, resumed, begun again, lost."""
    by: dict[str, list[Moment]] = defaultdict(list)
    for one in moments:
        by[one.name].append(one)
    rows = [["command", "SIGKILL", "SIGTERM, SIGINT", *STAGES, "resumed", "begun again", "lost"]]
    for name, those in [*by.items(), ("all", list(moments))]:
        kills = sum(one.how == signal.SIGKILL for one in those)
        at, resumed = Counter(one.stage for one in those), sum(one.resumed for one in those)
        counts = [kills, len(those) - kills, *(at[stage] for stage in STAGES), resumed, len(those) - resumed]
        rows.append([name, *map(str, counts), str(sum(bool(one.wrong) for one in those))])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|--:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def main() -> int:
    """Do the moments, print the table; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--signals", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600, help="stop after so many, and print what was done")
    parser.add_argument("--only", help="names of commands, with commas between")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(COMMANDS)
    load()
    draw = random.Random(given.seed)
    todo = [signal.SIGKILL] * given.kills + [draw.choice((signal.SIGTERM, signal.SIGINT)) for _ in range(given.signals)]
    draw.shuffle(todo)
    moments: list[Moment] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as top:
        references = {name: undisturbed(name, Path(top) / f"reference-{place}") for place, name in enumerate(names)}
        for name in names:
            print(f"{name}: {references[name]['seconds']:.1f} s undisturbed", file=sys.stderr, flush=True)
        for number, how in enumerate(todo):
            if time.monotonic() - began > 60 * given.minutes:
                break
            name, done = names[number % len(names)], None
            while done is None:
                fresh = draw.random() < 1 / 6
                at = draw.uniform(0, (references[name]["seconds"] + 6 * fresh) * 1.02)
                home = Path(top) / "home"
                home.mkdir()
                try:
                    done = moment(name, how, at, home, references[name], fresh=fresh)
                finally:
                    shutil.rmtree(home)
            moments.append(done)
            for line in done.wrong:
                print(f"{name}, {how.name} while {done.stage}: {line}", file=sys.stderr, flush=True)
            if (number + 1) % 10 == 0:
                print(f"{number + 1} of {len(todo)}", file=sys.stderr, flush=True)
    print(table(moments))
    return int(any(one.wrong for one in moments))


if __name__ == "__main__":
    sys.exit(main())
