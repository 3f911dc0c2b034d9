"""Three real processes, a real Redis, and what can go wrong with them: ``python -m tests.cluster``."""
