# What every check runs; `just check` is exactly what CI does.

check:
    bash .ci/run

test *args:
    uv run pytest {{args}}

# Recipes end to end, real processes and signals, a few mutated files, sizes that take a while: the second step of `just check`.
thorough *args:
    uv run pytest -m "thorough and not slow" {{args}}

slow:
    uv run pytest -m slow

# Mutated files, folders and command lines, thousands of them; a few run with every test.
fuzz:
    uv run pytest -n 0 -m "slow or not slow" tests/fuzz

# Processes ended at random moments, and what became of their work: 200 kills, 60 signals; an hour or more on two cores.
chaos *args:
    uv run python scripts/chaos.py {{args}}

# Small changes of meaning to the code, one at a time, and which of them no test notices; hours on one core, go on any time.
mutate *args:
    uv run python scripts/mutate.py {{args}}

# How often verdicts and intervals are wrong where the truth is known; writes the tables of docs/statistics.md.
calibrate *args:
    uv run python scripts/calibrate.py {{args}}

# What is said of real data, as they are and with labels by lot; writes two tables of docs/statistics.md. `--help` says what it reads.
verdicts-on-data *args:
    uv run python -m scripts.verdicts_on_data {{args}}

lint:
    uv run ruff format --check
    uv run ruff check
    uv run pyright
    uv run lint-imports

docs:
    uv run --group docs mkdocs build --strict

# docs/notebooks from the scripts in examples/notebooks, each run in a kernel of its own; some minutes on one core.
notebooks *args:
    uv run python scripts/notebooks.py {{args}}

# The audits of docs/gallery.md, from the commands on the page; `--help` says what it reads.
gallery *args:
    uv run python scripts/gallery.py {{args}}

# Tiny random models of every architecture through every stage, into docs/architectures.md; a quarter of an hour on one core.
architectures:
    uv run python scripts/architectures.py --write

# Wheel and sdist, looked over: version, changelog, licence, size; `just release --publish` uploads them.
release *args:
    uv run python scripts/release.py {{args}}

bench:
    uv run python benchmarks/extraction.py
    uv run python benchmarks/startup.py

# The house in figures: lines per room, how often a setting is declared, what one value crosses.
map *args:
    uv run python scripts/map.py {{args}}
