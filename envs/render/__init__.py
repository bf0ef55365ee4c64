"""Pictures of environments: where things are, who hears whom, and how each agent fares."""
