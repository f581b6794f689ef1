"""Which layers learn which group in a forecast: the run's own linear run, split exactly into its modules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefdyn._json import plain
from prefdyn.dynamics.module_shares import ModuleShares, module_shares, placed, summed
from prefdyn.training.rehearse import RunPart, Sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ByModule:
    """What modules add to each group's mean held-out margin from where the run was made linear to its last step."""

    names: tuple[str, ...]
    """Of the groups."""
    since: int
    """Step at which the run was made linear."""
    step: int
    """The run's last one, of the linear run."""
    seeds: int
    """Linear runs with other seeds that it is held against."""
    modules: ModuleShares
    layers: ModuleShares
    """All kinds of a layer together; a module in none by its name."""
    kinds: ModuleShares
    """All layers of a kind together."""

    @classmethod
    def of(cls, run: RunPart | None, rehearsals: Sequence[RunPart], sample: Sample, step: int) -> "ByModule | None":
        """Of the run's own linear run, and those of its rehearsals that got as far; None without one."""
        if run is None or not run.modules:
            return None
        others = [each.modules for each in rehearsals if each.modules]
        places = {name: placed(name) for name in run.modules}
        order = sorted(places, key=lambda name: (places[name][0] is None, places[name][0] or 0))
        rows = {
            "modules": {name: name for name in order},
            "layers": {name: places[name][1] if places[name][0] is None else f"{places[name][0]}" for name in order},
            "kinds": {name: places[name][1] for name in order},
        }
        parts = {
            what: module_shares(
                summed(run.modules, row), [summed(each, row) for each in others], sample.group, sample.unit
            )
            for what, row in rows.items()
        }  # fmt: skip
        return cls(names=sample.names, since=run.since, step=step, seeds=len(others), **parts)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per module and group: what modules.csv holds."""
        found, each = [], self.modules
        for at, module in enumerate(each.rows):
            layer, kind = placed(module)
            for code, name in enumerate(self.names):
                row = {"module": module, "layer": layer, "kind": kind, "group": name, "margin": each.margin[at, code]}
                row |= {"share": each.share[at, code], "share_error": each.error[at, code], "seeds": each.between[at]}
                found.append(plain(row | {"told": bool(each.told[at, code])}))
        return found

    def to_json(self) -> dict[str, Any]:
        """What summary.json says of it."""
        parts = {"modules": self.modules, "layers": self.layers, "kinds": self.kinds}
        return {
            "since": self.since,
            "step": self.step,
            "seeds": self.seeds,
            "names": self.names,
            **{
                what: {
                    "rows": part.rows, "margin": part.margin, "share": part.share, "error": part.error,
                    "between_seeds": part.between, "told": part.told.astype(int),
                }
                for what, part in parts.items()
            },
        }  # fmt: skip
