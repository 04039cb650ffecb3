"""Sessions: what runs the network, one contract (`sshr_deploy.runtime.contract.Session`)."""
