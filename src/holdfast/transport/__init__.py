"""How one Holdfast process asks another over HTTP: nodes their hubs, and a hub the one that it follows."""
