"""all-MiniLM-L6-v2 without torch: pinned weights, an ONNX graph, and an independent reference in float64."""
