"""WHAT FOLLOWS: margins as descent moves them. Features in, a Trajectory out; no text and no language model."""
