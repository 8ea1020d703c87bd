"""What a client says in its own words, read into a structured intent, with the source of every field."""
