"""Evidence: records, hash chain, Merkle tree, checkpoints, tiles, and the replay of the invariants."""
