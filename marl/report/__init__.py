"""Results of runs: what is written while a run goes on, and what is shown of it afterwards."""
