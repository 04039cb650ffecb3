"""What an operator needs of a program that runs unattended: events, metrics, health, hooks."""
