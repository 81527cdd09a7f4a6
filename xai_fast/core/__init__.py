"""The user's model: how it is prepared, addressed, asked for a score, and left exactly as it was found."""
