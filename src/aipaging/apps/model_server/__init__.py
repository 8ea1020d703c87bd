"""`aipaging model-server`: real inference behind an OpenAI-compatible `/v1/embeddings`.

One small model (all-MiniLM-L6-v2), served without torch, so that a real inference domain with its queueing, its
compute time and its genuine tail runs anywhere the package does. Any other OpenAI-compatible server does as well.
"""
