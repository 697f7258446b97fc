"""A KLEFR meter in software, for the demo and the tests."""
