"""Training configurations. Each is a lab note: what it is for, the command, what to expect."""
