"""Preference pairs out of a run (`make.py`), and the forms that training libraries read."""
