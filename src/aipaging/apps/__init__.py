"""Programs: composition roots that wire adapters, runtime and core together."""
