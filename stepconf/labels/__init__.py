"""Labels from verdicts: made anew (`relabel.py`), compared, and audited against people's."""
