"""What every part of the core shares: time, names, epochs, canonical bytes, errors."""
