"""The nodes beside a simulated robot: the stack as processes, tasks, faults on purpose, measurements, the demo."""
