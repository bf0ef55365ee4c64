"""Building blocks: layers under any sharing, neighbour layers, memory, normalisation."""
