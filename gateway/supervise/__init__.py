"""Supervision: whoever should have been heard and was not is looked after, to the second (R24)."""
