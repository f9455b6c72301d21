"""Language models behind one Protocol (`base.py`): vLLM, and transformers as the reference."""
