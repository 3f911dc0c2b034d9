"""What a checker infers of a user's code; `tests/test_typing.py` runs mypy and pyright, both strict, on it."""
