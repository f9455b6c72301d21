"""`stepconf serve`: the strategies as an OpenAI-compatible endpoint."""
