"""What every node shares: lifecycle, parameters, quality of service, time, messages, environment."""
