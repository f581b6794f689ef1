"""CHANGING a model: last layer, LoRA or all of it, measured per group and pair while it happens."""
