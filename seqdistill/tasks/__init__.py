"""The task: prompt files, templates, the form of answers, rubrics."""
