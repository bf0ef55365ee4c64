"""Tasks on a grid of cells: cars, foragers, hunters."""
