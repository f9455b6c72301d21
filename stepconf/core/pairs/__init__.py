"""Preference pairs out of solutions with labelled steps: pure functions, one per strategy.

`steps.py`: both sides follow one exact token prefix (`caspo`, `step_dpo`). `trajectories.py`: both sides are
whole solutions (`dpo_vp`, `pcpo`). `traces.py`: what they read and make. `select.py`: caps, balance, split.
"""
