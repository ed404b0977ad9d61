"""What must not be lost or learnt beside the task: refusals, planted secrets, training text, personal data, general text."""
