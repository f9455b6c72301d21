"""Language models of one Protocol (`base.py`): vLLM, and transformers as the reference."""
