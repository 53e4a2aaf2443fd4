"""Who acts: the pure deciding and the actors around it."""
