"""The student behind an OpenAI-compatible endpoint, and the teacher behind the student."""
