"""What tests share: builders of objects, the simulated API server, servers on 127.0.0.1."""
