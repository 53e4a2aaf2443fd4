"""Where it runs: settings, servers, hosts, client."""
