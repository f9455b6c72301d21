"""The `critic` verifier: a language model that judges steps. Start at `verifier.py`."""
