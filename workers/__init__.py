"""Workers: settings, wiring, actors, relay and the command line. The only folder that knows all the others."""
