"""`stepconf serve`: the strategies behind an OpenAI-compatible endpoint."""
