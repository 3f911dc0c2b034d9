"""Texts that appear word by word: ``python -m examples.stream`` starts it and prints its address."""
