"""A chat with rooms: ``python -m examples.chat`` starts it and prints its address."""
