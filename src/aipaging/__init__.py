"""The control plane that lets a network operator expose AI as a managed service."""

__version__ = "0.1.0"
