"""WHAT THE DATA SAYS: separation, prioritization, orthogonality and wording of each group, before any training.

Features in (for `wording`, text), frozen results out. No model is run here, and no run is simulated.
"""
