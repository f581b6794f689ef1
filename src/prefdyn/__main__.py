"""`prefdyn`, and `python -m prefdyn`, which is also what `accelerate launch -m prefdyn` starts."""

from prefdyn import _stopping


def main() -> None:
    """Run the command line; signals are answered from the first line on."""
    _stopping.install()
    from prefdyn.cli import main as run

    run()


if __name__ == "__main__":
    main()
