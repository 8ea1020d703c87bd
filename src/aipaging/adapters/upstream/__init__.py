"""What the two upstream servers that ship with the project share: a listener and the OpenAI error form."""
