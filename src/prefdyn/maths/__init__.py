"""FORMULAS: objectives, the margin kernel, measured constants. Arrays in, arrays out; no files, no models, no pictures.

Objectives and the kernel are written against the Python array API, so the same lines run on NumPy arrays and on torch
tensors; measured constants need LAPACK and are NumPy.
"""
