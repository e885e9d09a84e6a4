"""What is told to others about what was done: an audit log, and webhooks. `api` says what happened."""
