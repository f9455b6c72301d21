"""Where work runs beside the caller: killable processes (`pool.py`), sandboxes (`sandbox.py`), threads (`ahead.py`)."""
