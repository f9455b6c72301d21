"""The trainer: packed trees in, a better policy out."""
