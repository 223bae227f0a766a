"""Vision-language data: conversations, questions, and images of the user's."""
