"""What runs: recipes, the stage graph, keys, plans, and one module per kind of stage."""
