"""The verbs (plan, run, analyse, report) and one module a study."""
