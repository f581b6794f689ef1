"""`python -m prefdyn`, also what `accelerate launch -m prefdyn` starts."""

from prefdyn.cli import main

if __name__ == "__main__":
    main()
