"""`stepconf check`: is the run what it says, and fit to be published?"""
