"""`aipaging simulate`: scenario files in, delays with intervals out."""
