"""The words everybody shares: types, errors, keys, units and the TVM adapter (floor 1)."""
