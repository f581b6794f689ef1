"""WHAT IS PROVED: one module per paper, one function per statement, and `bounds`, which applies them to features.

Formulas take numbers and arrays and return numbers; statements return a `Bound` with its conditions. Nothing here
simulates: what was measured comes from a `Trajectory`.
"""
