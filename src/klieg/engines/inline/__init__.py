"""Everything in this process: for tests, debuggers and notebooks.

engine → actors / tasks → call → (concurrency/)
"""
