"""Studies that can be run again: each is resumable, keeps every stage as a run folder, and ends with one table."""
