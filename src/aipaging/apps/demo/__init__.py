"""The whole story on one machine, with real parts: controller, Envoy, sidecars, a real model, a load generator."""
