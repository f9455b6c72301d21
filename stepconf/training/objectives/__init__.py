"""What a policy is optimised for: one file an objective, a pure function of packed log-probabilities and entropies.

`base.py` declares what an objective is and what it sees; `kinds.OBJECTIVES` is the table of them all.
"""
