"""How many more pairs do more values need? The published law, the probability it rests on, and where it ends.

Run: uv run python examples/more_values.py
"""

from prefdyn.theory import value_scaling as scaling

ERROR = 0.05
SHARING, SHARED_NORM = 4, 0.25  # the most sharing of tokens that the theorem allows; its 45 was derived for it


def row(values: int) -> dict[str, str]:
    """What the law asks for, how likely it is to fail there, and what the error bound needs by our count."""
    pairs = scaling.required_pairs(values, ERROR)
    model = scaling.ClusterModel.at_the_limits(values, pairs, sharing=SHARING, shared_norm=SHARED_NORM)
    event = scaling.required_pairs_for_event(values, probability=ERROR, sharing=SHARING, shared_norm=SHARED_NORM)
    stated = scaling.required_pairs_for_event(values, probability=ERROR, form="stated")
    return {
        "K": f"{values}",
        "Q(K)": f"{pairs}",
        "stated failure": f"{scaling.stated_failure(values, pairs):.3g}",
        "explicit failure": f"{scaling.explicit_failure(model):.3g}",
        "Q, stated <= .05": f"{stated}",
        "Q, explicit <= .05": f"{event}",
    }


def main() -> None:
    """Print the table and what it comes to."""
    rows = [row(values) for values in (1, 2, 4, 8, 10, 16, 100, 1000)]
    print(f"Q(K): pairs per cluster for which the bound 2 K Q^2 exp(-Q/45) on the held-out error is at most {ERROR}")
    widths = {name: max(len(name), *(len(r[name]) for r in rows)) for name in rows[0]}
    print("  ".join(name.rjust(width) for name, width in widths.items()))
    for found in rows:
        print("  ".join(found[name].rjust(width) for name, width in widths.items()))
    ratio = scaling.pairs_at_error(100, ERROR) / scaling.pairs_at_error(10, ERROR)
    most = scaling.feasible_values(ERROR)
    print(
        f"From 10 values to 100 the law asks for {ratio:.2f}x the pairs per value, not 1.5x, and beyond K = {most} its "
        "own conditions ask for more; at these Q the stated failure probability is above 1, so as stated it is empty."
    )


if __name__ == "__main__":
    main()
