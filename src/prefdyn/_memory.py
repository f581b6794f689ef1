"""How much memory the machine has left for this process."""

from pathlib import Path


def free_bytes() -> int:
    """What the system has left, or the control group of this process where that is less."""
    import psutil

    left = psutil.virtual_memory().available
    room = _control_group()
    return left if room is None else min(left, room)


def _control_group(root: Path = Path("/")) -> int | None:
    """What the control groups of this process leave it, by the files of either version; None without a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if (room := _room(folder, *names)) is not None:
                found.append(room)
            if folder == base:
                break
    return min(found, default=None)


def _room(folder: Path, limit: str, used: str, idle: str) -> int | None:
    """Limit less use, where files that are merely cached do not count as used."""
    try:
        most, taken = ((folder / name).read_text().strip() for name in (limit, used))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if most == "max":
        return None
    return max(0, int(most) - int(taken) + int(stat.get(idle, 0)))
