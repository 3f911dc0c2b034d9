"""Prices that change faster than some clients read: ``python -m examples.ticker`` starts it and prints its address."""
