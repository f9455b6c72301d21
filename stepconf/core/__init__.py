"""Pure: no files, clock, network, environment or global randomness."""
