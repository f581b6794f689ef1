"""prefdyn: how preference optimisation will learn your data."""
