"""WHAT TO DO: the audit, and the verdict per group. Composes the rooms below; writes the files that a report shows."""
