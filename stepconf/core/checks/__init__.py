"""What can be wrong with a run, found in columns of whole shards: pure, no per-row Python where rows are many."""
