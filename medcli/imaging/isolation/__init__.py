"""Reading in supervised processes that may die without harm to the one that asks."""
