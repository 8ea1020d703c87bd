"""What is wanted, what is offered, and which offers are eligible."""
