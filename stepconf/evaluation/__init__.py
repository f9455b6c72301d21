"""Strategies at work: on a question (`infer.py`), on benchmarks (`evaluate.py`), side by side (`compare.py`)."""
