"""The Hugging Face Hub: a run's published form, on its way up and back."""
