"""The AI-Paging transaction: intent, candidates, admission, COMMIT, steering, relocation."""
