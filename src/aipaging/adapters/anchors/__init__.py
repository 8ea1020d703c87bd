"""The controller's client of anchors' sidecars."""
