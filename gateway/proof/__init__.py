"""What keeps the proof of what happened by the clock."""
