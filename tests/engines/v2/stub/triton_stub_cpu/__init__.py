"""Found by Triton under the entry point `triton.backends`; vLLM takes Triton to be usable where a driver is active."""
