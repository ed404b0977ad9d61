"""The one door for money: every completion ever paid for, what it cost, and the rule that nothing is requested twice."""
