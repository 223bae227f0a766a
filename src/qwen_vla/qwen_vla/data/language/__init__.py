"""Vision-language data: conversations, questions, and user images."""
