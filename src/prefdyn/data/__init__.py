"""Text: preference pairs, where they come from, and what is wrong with them before any model sees them.

`pairs` is the noun, `loaders` the door. `files` and `memory` find rows, `readers` knows file formats. `columns` is the
mapping from fields to what they mean, `layouts` the table of mappings that are known, `mapping` makes TRL's rows of any
row by one (`votes` reads winners, `forms` messages); `rows`, `conversation`, `persona` and `hh` know how a row is read,
`bad_rows` what happens to those that cannot be, `assemble` makes a dataset of the rest. `near` finds near duplicates,
`clusters` what hangs together, `split` keeps that together, `codes` numbers repeated texts. `preflight` and
`describe` look, `names` finds group names that look alike, `write` converts, `builtin` writes the data that the
package ships.
"""
