"""Step-wise confidence datasets for math reasoning. Start reading at `stepconf/pipeline.py`."""

__version__ = "0.1.0"
