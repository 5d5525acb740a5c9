"""The auditor (I3): derives anew what should have happened, from the tables alone, and raises what is missing.

It shares no code with what it audits: neither the rules of plans, ladders and procedures nor the SQL of the outbox.
What both would get wrong in the same way, nobody would find.
"""
