"""Who may sign in to the customer center, and what is kept of them."""
