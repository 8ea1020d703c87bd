"""The wire documents: closed types with every length and range named, converted to and from values of the core."""
