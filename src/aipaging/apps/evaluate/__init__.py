"""`aipaging evaluate`: what the two papers claim, measured here, with a sentence on each claim."""
