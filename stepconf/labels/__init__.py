"""Labels from verdicts: decided again (`relabel.py`), compared, and audited against people's."""
