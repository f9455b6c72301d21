"""The run folder: what it holds (`shards.py`), whether that is whole, and how far a run is."""
