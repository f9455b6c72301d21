"""Preference pairs out of solutions with labelled steps: pure functions over Polars frames.

`frames.py` declares the columns that strategies read and the rows that they choose. `steps.py` (`caspo`, `step_dpo`)
and `outcomes.py` (`rstar`, `cgpo`) pair steps after one exact token prefix, `solutions.py` (`dpo_vp`, `pcpo`) whole
solutions. `strategies.py` is the table of them all; `select.py` has splits, caps and balance, `reasons.py` why there is
no pair.
"""
