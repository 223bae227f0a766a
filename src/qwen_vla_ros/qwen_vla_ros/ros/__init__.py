"""What all nodes share: lifecycle, parameters, quality of service, time, messages, environment."""
