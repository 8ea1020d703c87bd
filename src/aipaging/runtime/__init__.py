"""The only asyncio of the control plane: engine loop, timers, effects, limits."""
