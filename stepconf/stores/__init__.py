"""Folders and files at URLs (s3://, gs://, ...): `opening.py` is the door, `sync.py` the protocol."""
