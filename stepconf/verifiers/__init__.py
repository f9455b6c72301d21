"""Verifiers of one Protocol (`base.py`); whatever is symbolic runs in killable workers (`workers/pool.py`)."""
