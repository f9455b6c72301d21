"""The stages of a run, chunk by chunk (`chunks.py`), here or on a Ray cluster (`cluster.py`)."""
