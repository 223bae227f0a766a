"""The model: configuration, processor, backbone with action expert, flow matching, and acceleration."""
