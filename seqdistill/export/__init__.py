"""What leaves a run: the student in other forms, as its teacher's draft model, and the data in other tools' shapes.

A tool beside the stages: reads what they wrote and changes none of it.
"""
