"""Problems and given solutions: named sets, local files, the Hub, reasoning-gym (`load.py` first)."""
